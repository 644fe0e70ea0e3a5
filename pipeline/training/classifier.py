"""A backbone with a head on top, and the pieces that it falls into where it is cut.

    images uint8 [N, S, S, 3] -- lower --> maps [N, h, w, c], pooled [N, C] -- upper --> logits [N, K]

`lower` is what stays frozen, the filters first; `upper` the blocks that learn, with the head behind them. `maps` is
what the lowest of these takes, missing where none learns; `pooled` are the head's features that come from below them,
missing where there are none. All pieces share their layers, so training `upper` trains `whole`.
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
from pipeline.backbones.scaling import InputScaling, PixelModel
from pipeline.training import filters as image_filters
from pipeline.training.layers import Probabilities, Standardise

MAPS, POOLED = "maps", "pooled"
# What pooling `blocks` takes averages and maxima from: the ends of these blocks, counted from the top, as far as there
# are. The last map is made for ImageNet's classes; edges and textures that tell other classes are clearer further down.
# Logistic regression gains 2 to 5 points of balanced accuracy by it (benchmarks/RESULTS.md).
TAPPED = (1, 3, 5, 7, 9)
# Features that hardly vary in training (dead units) would be blown up by dividing by their spread: one test image
# that excites such a unit would drown all others. This share of the mean variance is added to each variance.
_VARIANCE_FLOOR = 0.05
_STANDARDISE = "standardise"
LOGITS = "logits"  # the last layer with weights
_BOTH = ("average_max", "blocks")  # poolings by average and by maximum

Tensors = Sequence[keras.KerasTensor]


@dataclass(frozen=True)
class Pieces:
    """`lower`: images to a dict of `maps` and `pooled`. `upper`: such a dict to logits."""

    lower: keras.Model
    upper: keras.Model


@dataclass(frozen=True)
class Classifier:
    """`whole`: images to probabilities. `widths`: of the pieces that the head's features are put together from."""

    backbone: keras.Model
    entry: Backbone
    whole: keras.Model
    pooling: str
    widths: tuple[int, ...]
    _scaled: keras.KerasTensor = field(repr=False)
    _classify: Callable[[keras.KerasTensor], keras.KerasTensor] = field(repr=False)

    def cut(self, blocks: int) -> Pieces:
        """The pieces below and above the last `blocks` blocks of the backbone."""
        lower = self.below([blocks])
        outputs = {name.partition("/")[2]: tensor for name, tensor in lower.output.items()}
        inputs = {name: keras.Input(tensor.shape[1:], name=name) for name, tensor in outputs.items()}
        features = []
        if blocks:
            tapped = [self._end(depth - 1) for depth in self._tapped if depth <= blocks]
            middle = keras.Model(self._end(blocks), [_pooled(end, self.pooling) for end in tapped], name="middle")
            found = middle(inputs[MAPS])
            features += found if isinstance(found, list) else [found]
        if POOLED in inputs:
            features.append(inputs[POOLED])
        upper = keras.Model(inputs, self._classify(_joined(features)), name="upper")
        named = keras.Model(self.whole.input, outputs, name="lower")
        named.compile(jit_compile="auto")
        return Pieces(named, upper)

    def below(self, cuts: Sequence[int]) -> keras.Model:
        """Images to what lies below several cuts, in one pass: `<blocks>/maps` and `<blocks>/pooled`."""
        outputs = {}
        for blocks in cuts:
            if blocks:
                outputs[f"{blocks}/{MAPS}"] = self._end(blocks)
            if tapped := [self._end(depth - 1) for depth in self._tapped if depth > blocks]:
                outputs[f"{blocks}/{POOLED}"] = _joined([_pooled(end, self.pooling) for end in tapped])
        frozen = keras.Model(self.backbone.input, outputs, name="frozen")
        # Frozen layers give what they give in use, also within a model that is trained.
        lower = keras.Model(self.whole.input, frozen(self._scaled, training=False), name="below")
        lower.compile(jit_compile="auto")  # uncompiled, Keras predicts through XLA, on a CPU 20 times slower
        return lower

    def _end(self, blocks: int) -> keras.KerasTensor:
        return _end(self.backbone, self.entry, blocks)

    @property
    def _tapped(self) -> list[int]:
        return _tapped(self.entry, self.pooling)

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
    classify = _head(len(classes), head, hidden)
    probabilities = Probabilities(classes, name="probabilities")

    images = keras.Input(backbone.input.shape[1:], dtype="uint8", name="images")
    filtered = images
    for layer in image_filters.make(filters):
        filtered = layer(filtered)
    scaled = scaling(filtered)
    tapped = [_end(backbone, entry, depth - 1) for depth in _tapped(entry, head.pooling)]
    # A backbone without taps is kept whole in the file, by its own name.
    body = backbone if len(tapped) == 1 else keras.Model(backbone.input, tapped, name=backbone.name)
    ends = body(scaled)
    pooled = _joined([_pooled(end, head.pooling) for end in (ends if isinstance(ends, list) else [ends])])
    # The head's layers are applied here one by one, not as a model within: a model that was trained would take its
    # optimizer and loss into the file, and the file could not be read without them.
    whole = PixelModel(images, probabilities(classify(pooled)), name="classifier")
    whole.compile(jit_compile="auto")  # see `below`
    of_end = 2 if head.pooling in _BOTH else 1
    widths = tuple(int(end.shape[-1]) for end in tapped for _ in range(of_end))
    return Classifier(backbone, entry, whole, head.pooling, widths, scaled, classify)


def standardise(classifier: Classifier, mean: NDArray[np.float64], variance: NDArray[np.float64]) -> None:
    """Set the head's mean and scale, if it has them, from those of training features, float64 [C]."""
    if _STANDARDISE not in [layer.name for layer in classifier.whole.layers]:
        return
    # Maxima vary far more than averages, and blocks differ: each piece has a floor of its own.
    pieces = np.split(variance, np.cumsum(classifier.widths)[:-1])
    floor = np.concatenate([np.full(len(piece), _VARIANCE_FLOOR * piece.mean()) for piece in pieces])
    scale = 1 / np.sqrt(variance + floor + np.finfo(np.float32).tiny)
    classifier.whole.get_layer(_STANDARDISE).set_weights([mean, scale])


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
    """What the last `blocks` blocks take."""
    if blocks == 0:
        return backbone.output
    if blocks >= entry.blocks:
        return backbone.input
    return backbone.get_layer(entry.block_ends[-blocks]).output


def _tapped(entry: Backbone, pooling: str) -> list[int]:
    """The blocks, counted from the top, whose ends the head's features are pooled from."""
    return [depth for depth in TAPPED if depth <= entry.blocks] if pooling == "blocks" else [1]


def _pooled(maps: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    """Maps [N, h, w, c] to [N, c], or [N, 2 c] for `average_max` and `blocks`."""
    average = [layers.GlobalAveragePooling2D()(maps)] if pooling in ("average", *_BOTH) else []
    largest = [layers.GlobalMaxPooling2D()(maps)] if pooling in ("max", *_BOTH) else []
    return _joined(average + largest)


def _joined(features: Tensors) -> keras.KerasTensor:
    return layers.Concatenate()(features) if len(features) > 1 else features[0]


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
    steps.append(layers.Dense(classes, kernel_initializer="zeros", dtype="float32", name=LOGITS))

    def classify(features: keras.KerasTensor) -> keras.KerasTensor:
        x = features
        for step in steps:
            x = step(x)
        return x

    return classify
