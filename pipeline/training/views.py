"""What is frozen gives the same output each time, so it is computed once per image and view and then kept.

View 0 is the image itself, the others are altered copies. V counts all of them, N the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.dataset import augment
from pipeline.progress import track
from pipeline.settings import Augment
from pipeline.training.classifier import Classifier

SHUFFLED = 4096  # images held to be drawn from; shards are in no order of classes already
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Views:
    """`features`: float32 [V, N, C]. `maps`: float16 [V, N, h, w, c], what the unfrozen blocks take; None if too
    large to keep. `classes`: int64 [N]."""

    features: NDArray[np.float32]
    maps: NDArray[np.float16] | None
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """Which views are made of an image."""

    altered: int
    seed: int
    settings: Augment


def map_bytes(classifier: Classifier, images: int, recipe: Recipe) -> int:
    """Memory that the maps of so many images take."""
    return images * (recipe.altered + 1) * int(np.prod(classifier.lower.output.shape[1:])) * 2


def embed(
    classifier: Classifier,
    images: tf.data.Dataset,
    count: int,
    recipe: Recipe,
    *,
    batch_size: int,
    keep_maps: bool,
    what: str,
) -> Views:
    """Run the frozen network once over every view of `count` images.

    Args:
        images: unbatched (image uint8 [S, S, 3], class int64, id string).
    """
    number = recipe.altered + 1
    features = np.empty((number, count, classifier.middle.output.shape[-1]), np.float32)
    shape = classifier.lower.output.shape[1:]
    maps = np.empty((number, count, *shape), np.float16) if keep_maps else None
    classes = np.empty(count, np.int64)
    start = 0
    batches = images.batch(batch_size).prefetch(2).as_numpy_iterator()
    for pictures, labels, names in track(batches, total=-(-count // batch_size), what=what):
        rows = slice(start, start + len(labels))
        ids = [name.decode() for name in names]
        for i in range(number):
            view = augment.view(pictures, ids, number=i, seed=recipe.seed, settings=recipe.settings)
            # A smaller last batch would make Keras trace the networks anew, which costs more than the padding.
            padded = np.concatenate([view, np.repeat(view[-1:], batch_size - len(view), axis=0)])
            lower = classifier.lower.predict_on_batch(padded)
            features[i, rows] = classifier.middle.predict_on_batch(lower)[: len(view)]
            if maps is not None:
                maps[i, rows] = np.clip(lower[: len(view)], -_FLOAT16_MAX, _FLOAT16_MAX)
        classes[rows] = labels
        start = rows.stop
    return Views(features, maps, classes)


class Shuffled(keras.utils.PyDataset):
    """Every image once per epoch, in one of its views, in a new order; (inputs float32, class, weight) batches.

    Order and views follow from the seed. What does not fill a batch is left to the next epoch's order.
    """

    def __init__(
        self,
        inputs: NDArray[Any],
        classes: NDArray[np.int64],
        weights: NDArray[np.float32],
        *,
        batch_size: int,
        seed: int,
        passes: int = 1,
    ) -> None:
        super().__init__()
        self.inputs, self.classes, self.weights, self.passes = inputs, classes, weights, passes
        self.batch_size = min(batch_size, len(classes) * passes)
        self.random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.classes) * self.passes // self.batch_size

    def __getitem__(self, index: int) -> tuple[NDArray[Any], ...]:
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        views, images = self.views[rows], self.images[rows]
        return self.inputs[views, images].astype(np.float32), self.classes[images], self.weights[self.classes[images]]

    def on_epoch_end(self) -> None:
        views, count = len(self.inputs), len(self.classes)
        # Each pass takes another view of an image as long as there are views left.
        order = self.random.permuted(np.tile(np.arange(views), (count, 1)), axis=1)
        taken = np.stack([order[:, i % views] for i in range(self.passes)], axis=1).ravel()
        shuffle = self.random.permutation(count * self.passes)
        self.views, self.images = taken[shuffle], np.repeat(np.arange(count), self.passes)[shuffle]


def online(
    images: tf.data.Dataset, count: int, weights: NDArray[np.float32], recipe: Recipe, *, batch_size: int
) -> tf.data.Dataset:
    """Endless (altered image uint8, class, weight) batches, each epoch in a new order and with new alterations."""
    size = min(batch_size, count)
    steps = count // size

    def alter(pictures: NDArray[np.uint8], names: NDArray[Any], epoch: NDArray[np.int64]) -> NDArray[np.uint8]:
        ids = [name.decode() for name in names]
        return augment.view(pictures, ids, number=int(epoch) + 1, seed=recipe.seed, settings=recipe.settings)

    def prepare(step: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        pictures, labels, names = batch
        altered = tf.numpy_function(alter, [pictures, names, step // steps], tf.uint8)
        return tf.ensure_shape(altered, pictures.shape), labels, tf.gather(weights, labels)

    shuffled = images.shuffle(min(count, SHUFFLED), seed=recipe.seed, reshuffle_each_iteration=True)
    return shuffled.batch(size, drop_remainder=True).repeat().enumerate().map(prepare).prefetch(2)


def unaltered(images: tf.data.Dataset, count: int, *, batch_size: int) -> tf.data.Dataset:
    """(image uint8, class) batches of all `count` images, once, in their order."""
    batches = images.batch(batch_size).map(lambda pictures, labels, _: (pictures, labels)).prefetch(2)
    # Shards are filtered, so tf.data does not know the length, and Keras would warn that data ran out.
    return batches.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))


def class_weights(classes: NDArray[np.int64], number: int, *, balanced: bool) -> NDArray[np.float32]:
    """Float32 [number], mean 1 over the images: N / (number * images of the class), or ones."""
    counts = np.bincount(classes, minlength=number)
    if not balanced:
        return np.ones(number, np.float32)
    return (counts.sum() / (number * counts)).astype(np.float32)
