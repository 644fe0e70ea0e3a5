"""A backbone of three small blocks with all that matters: BatchNorm, a residual, and cuts between the blocks."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from pipeline.backbones.registry import Backbone
from pipeline.settings import Filter, Head
from pipeline.training import classifier
from pipeline.training.classifier import Classifier

CLASSES = ("blue", "green", "red")
SIZE = 16


def build(size: int, *, pretrained: bool) -> keras.Model:
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same", name="stem_conv")(inputs)
    x = layers.ReLU(name="stem")(layers.BatchNormalization(name="stem_bn")(x))
    y = layers.BatchNormalization(name="block_bn")(layers.Conv2D(6, 3, padding="same", name="block_conv")(x))
    x = layers.Add(name="block")([x, layers.ReLU()(y)])
    x = layers.BatchNormalization(name="top_bn")(layers.Conv2D(8, 1, name="top_conv")(x))
    model = keras.Model(inputs, layers.ReLU()(x), name="tiny")
    for number, layer in enumerate(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)):
        random = np.random.default_rng(number)
        layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


ENTRY = Backbone("tiny", build, scaling="tf", native_size=SIZE, minimum_size=8, block_ends=("stem", "block"))


def make(*, filters: Sequence[Filter] = (), hidden: Sequence[int] = (), pooling: str = "average") -> Classifier:
    keras.utils.set_random_seed(0)
    head = Head(pooling=pooling, normalisation="standardise", hidden=None, dropout=0.0)
    backbone = build(SIZE, pretrained=False)
    return classifier.build(backbone, ENTRY, classes=CLASSES, head=head, hidden=hidden, filters=filters)


def trained(*, filters: Sequence[Filter] = ()) -> Classifier:
    """As `make`, with a head that tells images apart."""
    model = make(filters=filters)
    features = model.cut(0).lower.predict_on_batch(pictures(12)[0])[classifier.POOLED]
    classifier.standardise(model, features.mean(axis=0), features.var(axis=0))
    model.whole.get_layer("logits").set_weights([np.random.default_rng(0).normal(size=(8, 3)), np.zeros(3)])
    return model


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images whose strongest channel tells their class; classes int64; ids."""
    classes = np.arange(count, dtype=np.int64) % 3
    images = np.random.default_rng(seed).integers(0, 120, (count, SIZE, SIZE, 3), np.uint8)
    images[np.arange(count), :, :, 2 - classes] += 100
    return images, classes, [f"{seed}-{i}" for i in range(count)]


def dataset(count: int, view: int = 0, seed: int = 0) -> tf.data.Dataset:
    """As `records.dataset`."""
    images, classes, ids = pictures(count, seed)
    same = np.zeros(count, np.int64)
    return tf.data.Dataset.from_tensor_slices(
        {"image": images, "class": classes, "id": ids, "view": same + view, "copy": same}
    )


def batches(count: int, batch_size: int) -> tf.data.Dataset:
    """Endless, as `records.batches`, but in one order."""
    epochs = tf.data.Dataset.range(1, np.iinfo(np.int64).max)
    return epochs.flat_map(lambda epoch: dataset(count).map(lambda found: found | {"view": epoch})).batch(batch_size)
