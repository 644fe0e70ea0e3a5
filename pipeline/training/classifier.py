"""A backbone with a head on top, and the pieces that it falls into where it is cut.

    images uint8 [N, S, S, 3] -- lower --> maps [N, h, w, c] -- middle --> features [N, C] -- head --> logits [N, K]

`lower` is what stays frozen, the filters first; `middle` the blocks that learn, with the pooling behind them. All
pieces share their layers, so training `upper` (middle + head) trains `whole`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from pipeline import settings
from pipeline.backbones.registry import Backbone
from pipeline.backbones.scaling import InputScaling
from pipeline.training import filters as image_filters
from pipeline.training.layers import Probabilities, Standardise

# Features that hardly vary in training (dead units) would be blown up by dividing by their spread: one test image
# that excites such a unit would drown all others. This share of the mean variance is added to each variance.
_VARIANCE_FLOOR = 0.05
_STANDARDISE = "standardise"


@dataclass(frozen=True)
class Pieces:
    """`lower`: images to maps. `middle`: maps to features. `upper`: maps to logits."""

    lower: keras.Model
    middle: keras.Model
    upper: keras.Model


@dataclass(frozen=True)
class Classifier:
    """`head`: features to logits. `features`: images to features. `whole`: images to probabilities."""

    backbone: keras.Model
    entry: Backbone
    head: keras.Model
    features: keras.Model
    whole: keras.Model
    _scaled: keras.KerasTensor = field(repr=False)
    _pool: Callable[[keras.KerasTensor], keras.KerasTensor] = field(repr=False)
    _classify: Callable[[keras.KerasTensor], keras.KerasTensor] = field(repr=False)

    def cut(self, blocks: int) -> Pieces:
        """The pieces below and above the last `blocks` blocks of the backbone, at least one."""
        images, end = self.whole.input, _end(self.backbone, self.entry, blocks)
        below = keras.Model(self.backbone.input, end, name="below")
        # Frozen layers give what they give in use, also within a model that is trained.
        lower = keras.Model(images, below(self._scaled, training=False), name="lower")
        middle = keras.Model(end, self._pool(self.backbone.output), name="middle")
        maps = keras.Input(end.shape[1:], name="maps")
        upper = keras.Model(maps, self._classify(middle(maps)), name="upper")
        for model in (lower, middle):
            model.compile(jit_compile="auto")  # uncompiled, Keras predicts through XLA, on a CPU 20 times slower
        return Pieces(lower, middle, upper)

    @property
    def size(self) -> int:
        """Side of the images."""
        return int(self.whole.input.shape[1])


def build(
    backbone: keras.Model,
    entry: Backbone,
    *,
    classes: Sequence[str],
    head: settings.Head,
    hidden: Sequence[int] = (),
    filters: Sequence[settings.Filter] = (),
) -> Classifier:
    """Put `filters` in front of `backbone` and a head on it. Everything but the head is frozen.

    Args:
        hidden: units of the head's hidden layers.
    """
    backbone.trainable = False
    scaling = InputScaling(entry.scaling, name="input_scaling")
    pool = _pooling(head.pooling)
    classify = _head(len(classes), head, hidden)
    probabilities = Probabilities(classes, name="probabilities")

    images = keras.Input(backbone.input.shape[1:], dtype="uint8", name="images")
    filtered = images
    for layer in image_filters.make(filters):
        filtered = layer(filtered)
    scaled = scaling(filtered)
    pooled = pool(backbone(scaled))
    # The head's layers are applied here one by one, not as a model within: a model that was trained would take its
    # optimizer and loss into the file, and the file could not be read without them.
    whole = keras.Model(images, probabilities(classify(pooled)), name="classifier")
    features = keras.Model(images, pooled, name="features")
    inputs = keras.Input(pooled.shape[1:], name="features")
    on_features = keras.Model(inputs, classify(inputs), name="head")
    for model in (features, whole):
        model.compile(jit_compile="auto")  # see `cut`
    return Classifier(backbone, entry, on_features, features, whole, scaled, pool, classify)


def standardise(classifier: Classifier, features: NDArray[np.float32]) -> None:
    """Set the head's mean and scale, if it has them, from training features, float32 [N, C]."""
    if _STANDARDISE not in [layer.name for layer in classifier.head.layers]:
        return
    variance = features.var(axis=0, dtype=np.float64)
    scale = 1 / np.sqrt(variance + _VARIANCE_FLOOR * variance.mean() + np.finfo(np.float32).tiny)
    classifier.head.get_layer(_STANDARDISE).set_weights([features.mean(axis=0, dtype=np.float64), scale])


def unfreeze(classifier: Classifier, blocks: int, *, batch_norm: bool, decay: float) -> dict[str, float]:
    """Let the last `blocks` blocks learn, and nothing else of the backbone.

    Args:
        batch_norm: let BatchNorm learn and follow the statistics of the batches too. Otherwise it stays in inference
            mode with what it has: the statistics of a few small batches are noise against those of ImageNet, and the
            frozen layers below were trained for the latter (Kornblith et al. 2019, Keras's guide to transfer learning).
        decay: of the learning rate from one block to the one below it.

    Returns the path of each variable of the backbone that learns, with its share of the head's learning rate.
    """
    for layer in classifier.backbone.layers:
        layer.trainable = False
    shares: dict[str, float] = {}
    above: set[int] = set()
    for depth in range(1, blocks + 1):
        end = _end(classifier.backbone, classifier.entry, depth)
        found = [layer for layer in keras.Model(end, classifier.backbone.output).layers if id(layer) not in above]
        above.update(map(id, found))
        for layer in found:
            layer.trainable = batch_norm or not isinstance(layer, layers.BatchNormalization)
            shares |= {variable.path: decay**depth for variable in layer.trainable_variables}
    return shares


def _end(backbone: keras.Model, entry: Backbone, blocks: int) -> keras.KerasTensor:
    if blocks >= entry.blocks:
        return backbone.input
    return backbone.get_layer(entry.block_ends[-blocks]).output


def _pooling(kind: str) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    """Maps [N, h, w, c] to features [N, c], or [N, 2 c] for `average_max`."""
    average, largest = layers.GlobalAveragePooling2D(name="pool"), layers.GlobalMaxPooling2D(name="pool_max")
    if kind == "average":
        return average
    if kind == "max":
        return largest
    joined = layers.Concatenate(name="pools")
    return lambda maps: joined([average(maps), largest(maps)])


def _head(classes: int, head: settings.Head, hidden: Sequence[int]) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    """Features [N, C] to logits [N, classes]. Calling the result again shares its layers."""
    steps: list[keras.layers.Layer] = []
    if head.normalisation == "standardise":
        steps.append(Standardise(name=_STANDARDISE))
    for number, units in enumerate(hidden):
        steps.append(layers.Dropout(head.dropout, name=f"dropout_{number}"))
        steps.append(layers.Dense(units, activation="relu", name=f"hidden_{number}"))
    steps.append(layers.Dropout(head.dropout, name="dropout"))
    # Zero weights start at the same loss for every backbone and seed: ln(classes).
    steps.append(layers.Dense(classes, kernel_initializer="zeros", dtype="float32", name="logits"))

    def classify(features: keras.KerasTensor) -> keras.KerasTensor:
        x = features
        for step in steps:
            x = step(x)
        return x

    return classify
