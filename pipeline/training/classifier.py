"""A backbone with a classifier on top, in the pieces that the two phases of training need.

    images uint8 [N, S, S, 3] -- lower --> maps [N, h, w, c] -- middle --> features [N, C] -- head --> logits [N, K]

`lower` is what stays frozen in both phases, the filters first, `middle` the blocks that the second phase unfreezes,
with the pooling behind them. All pieces share their layers, so training `upper` (middle + head) trains `whole`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from pipeline.backbones.registry import Backbone
from pipeline.backbones.scaling import InputScaling
from pipeline.settings import Filter
from pipeline.training import filters as image_filters
from pipeline.training.layers import Probabilities, Standardise

# Features that hardly vary in training (dead units) would be blown up by dividing by their spread: one test image
# that excites such a unit would drown all others. This share of the mean variance is added to each variance.
_VARIANCE_FLOOR = 0.05


@dataclass(frozen=True)
class Classifier:
    lower: keras.Model
    middle: keras.Model
    head: keras.Model
    upper: keras.Model  # maps to logits
    whole: keras.Model  # images to probabilities


def build(
    backbone: keras.Model,
    entry: Backbone,
    *,
    classes: Sequence[str],
    blocks: int,
    dropout: float,
    filters: Sequence[Filter] = (),
) -> Classifier:
    """Put `filters` in front of `backbone` and a head on it, and cut it below its last `blocks` blocks.

    Everything but the head is frozen.
    """
    backbone.trainable = False
    cut = _cut(backbone, entry, blocks)

    scaling = InputScaling(entry.scaling, name="input_scaling")
    pool = layers.GlobalAveragePooling2D(name="pool")
    classify = _head(len(classes), dropout)
    probabilities = Probabilities(classes, name="probabilities")

    images = keras.Input(backbone.input.shape[1:], dtype="uint8", name="images")
    filtered = images
    for layer in image_filters.make(filters):
        filtered = layer(filtered)
    scaled = scaling(filtered)
    below = keras.Model(backbone.input, cut, name="lower")
    lower = keras.Model(images, below(scaled), name="lower_blocks")
    middle = keras.Model(cut, pool(backbone.output), name="middle")
    features = keras.Input(middle.output.shape[1:], name="features")
    head = keras.Model(features, classify(features), name="head")
    maps = keras.Input(cut.shape[1:], name="maps")
    upper = keras.Model(maps, classify(middle(maps)), name="upper")
    # The head's layers are applied here one by one, not as a model within: a model that was trained would take its
    # optimizer and loss into the file, and the file could not be read without them.
    whole = keras.Model(images, probabilities(classify(pool(backbone(scaled)))), name="classifier")
    for model in (lower, middle, whole):
        model.compile(jit_compile="auto")  # uncompiled, Keras predicts through XLA, on a CPU 20 times slower
    return Classifier(lower, middle, head, upper, whole)


def standardise(classifier: Classifier, features: NDArray[np.float32]) -> None:
    """Set the head's mean and scale from training features, float32 [N, C]."""
    variance = features.var(axis=0, dtype=np.float64)
    scale = 1 / np.sqrt(variance + _VARIANCE_FLOOR * variance.mean() + np.finfo(np.float32).tiny)
    classifier.head.get_layer("standardise").set_weights([features.mean(axis=0, dtype=np.float64), scale])


def unfreeze(classifier: Classifier) -> None:
    """Let `middle` learn, except for BatchNorm, which stays in inference mode with the statistics that it has.

    The statistics of a few small batches are noise against those of ImageNet, and the frozen layers below were
    trained for the latter (Kornblith et al. 2019 and Keras's guide to transfer learning).
    """
    for layer in classifier.middle.layers:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)


def _cut(backbone: keras.Model, entry: Backbone, blocks: int) -> keras.KerasTensor:
    if blocks == 0:
        return backbone.output
    if blocks == entry.blocks:
        return backbone.input
    return backbone.get_layer(entry.block_ends[-blocks]).output


def _head(classes: int, dropout: float) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    """Features [N, C] to logits [N, classes]. Calling the result again shares its layers."""
    standardised, dropped = Standardise(name="standardise"), layers.Dropout(dropout, name="dropout")
    # Zero weights start at the same loss for every backbone and seed: ln(classes).
    logits = layers.Dense(classes, kernel_initializer="zeros", name="logits")
    return lambda features: logits(dropped(standardised(features)))
