"""What is frozen gives the same output each time, so it is computed once per image and view and then kept.

View 0 is the image itself, the others are altered copies. V counts all of them, N the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.dataset import augment, mixing, presets
from pipeline.dataset.presets import Policy
from pipeline.dataset.warp import on_cpu
from pipeline.progress import track
from pipeline.settings import Augment
from pipeline.training.classifier import Classifier

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_COPIES_APART = 1 << 40  # more than there are views of an image


@dataclass(frozen=True)
class Views:
    """`features`: float32 [V, N, C]. `maps`: float16 [V, N, h, w, c], what the unfrozen blocks take; None if too
    large to keep. `classes`: int64 [N]."""

    features: NDArray[np.float32]
    maps: NDArray[np.float16] | None
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """Which views are made of an image. `mirrored`: bool [classes], whether images of a class may be mirrored."""

    altered: int
    seed: int
    policy: Policy
    mirrored: NDArray[np.bool_]


def recipe(altered: int, settings: Augment, classes: Sequence[str]) -> Recipe:
    policy = presets.resolve(settings)
    mirrored = np.array([name not in policy.never_mirror for name in classes])
    return Recipe(altered, settings.seed, policy, mirrored)


def map_bytes(classifier: Classifier, images: int, recipe: Recipe) -> int:
    """Memory that the maps of so many images take."""
    return images * (recipe.altered + 1) * int(np.prod(classifier.lower.output.shape[1:])) * 2


def embed(
    classifier: Classifier,
    images: Callable[[int], tf.data.Dataset],
    count: int,
    recipe: Recipe,
    *,
    batch_size: int,
    keep_maps: bool,
    what: str,
) -> Views:
    """Run the frozen network once over every view of `count` images.

    Args:
        images: gives the images of a view, as `records.dataset` does.
    """
    number = recipe.altered + 1
    features = np.empty((number, count, classifier.middle.output.shape[-1]), np.float32)
    shape = classifier.lower.output.shape[1:]
    maps = np.empty((number, count, *shape), np.float16) if keep_maps else None
    classes = np.empty(count, np.int64)
    batches = (
        (view, position, batch)
        for view in range(number)
        for position, batch in enumerate(images(view).batch(batch_size).prefetch(2).as_numpy_iterator())
    )
    for view, position, batch in track(batches, total=number * -(-count // batch_size), what=what):
        rows = slice(position * batch_size, position * batch_size + len(batch["class"]))
        pictures = _of_view(batch, view, recipe)
        # A smaller last batch would make Keras trace the networks anew, which costs more than the padding.
        padded = np.concatenate([pictures, np.repeat(pictures[-1:], batch_size - len(pictures), axis=0)])
        lower = classifier.lower.predict_on_batch(padded)
        features[view, rows] = classifier.middle.predict_on_batch(lower)[: len(pictures)]
        if maps is not None:
            maps[view, rows] = np.clip(lower[: len(pictures)], -_FLOAT16_MAX, _FLOAT16_MAX)
        classes[rows] = batch["class"]
    return Views(features, maps, classes)


def _of_view(batch: Mapping[str, NDArray[Any]], view: int, recipe: Recipe) -> NDArray[np.uint8]:
    if view == 0:
        return batch["image"]
    altered: NDArray[np.uint8] = keras.ops.convert_to_numpy(
        augment.altered(
            batch["image"],
            batch["id"],
            _view(batch),
            recipe.mirrored[batch["class"]],
            policy=recipe.policy,
            seed=recipe.seed,
        )
    )
    return altered


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


class Altered(keras.layers.Layer):
    """Alters images as the draws that come with them say, where and when the model runs; in training only."""

    def __init__(self, fill: str, **kwargs: Any) -> None:
        # Keras would cast the draws, which are float32, to the layer's dtype.
        super().__init__(dtype="uint8", autocast=False, **kwargs)
        self.fill = fill
        self.supports_jit = not on_cpu()

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        draws = dict(inputs)
        images = draws.pop("image")
        return augment.apply(images, draws, fill=self.fill) if training else images


def altering(model: keras.Model, recipe: Recipe) -> keras.Model:
    """`model` of images uint8 [N, S, S, 3], with its input as `online` gives it."""
    shape = model.input.shape[1:]
    draws = augment.draw(
        tf.constant([""]), tf.constant([1]), [True], policy=recipe.policy, seed=0, height=shape[0], width=shape[1]
    )
    inputs = {"image": keras.Input(shape, dtype="uint8", name="image")} | {
        name: keras.Input(array.shape[1:], dtype="float32", name=name) for name, array in draws.items()
    }
    return keras.Model(inputs, model(Altered(recipe.policy.fill)(inputs)))


def online(batches: tf.data.Dataset, weights: NDArray[np.float32], recipe: Recipe) -> tf.data.Dataset:
    """Endless ({image, draws}, class or probabilities, weight) batches from those of `records.batches`."""

    def prepare(step: tf.Tensor, found: dict[str, tf.Tensor]) -> tuple[Any, ...]:
        inputs, classes = _inputs(found, recipe)
        weight = tf.gather(weights, classes)
        if not recipe.policy.mixes:
            return inputs, classes, weight
        image, targets, weight = mixing.mix(
            inputs["image"], classes, weight, step, policy=recipe.policy, seed=recipe.seed, number=len(weights)
        )
        return inputs | {"image": image}, targets, weight

    return batches.enumerate().map(prepare, tf.data.AUTOTUNE).prefetch(2)


def unaltered(images: tf.data.Dataset, count: int, recipe: Recipe, *, batch_size: int) -> tf.data.Dataset:
    """({image, draws}, class) batches of all `count` images, once, in their order; a model in use ignores the draws."""
    batches = images.batch(batch_size).map(lambda found: _inputs(found, recipe)).prefetch(2)
    # Shards are filtered, so tf.data does not know the length, and Keras would warn that data ran out.
    return batches.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))


def _inputs(found: Mapping[str, tf.Tensor], recipe: Recipe) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    draws = augment.draw(
        found["id"],
        _view(found),
        tf.gather(recipe.mirrored, found["class"]),
        policy=recipe.policy,
        seed=recipe.seed,
        height=found["image"].shape[1],
        width=found["image"].shape[2],
    )
    return {"image": found["image"], **draws}, found["class"]


def _view(found: Mapping[str, Any]) -> Any:
    """Views of a copy that was stored are drawn anew: altered as its image is, it would bring little that is new."""
    return found["view"] + found["copy"] * _COPIES_APART


def class_weights(classes: NDArray[np.int64], number: int, *, balanced: bool) -> NDArray[np.float32]:
    """Float32 [number], mean 1 over the images: N / (number * images of the class), or ones."""
    counts = np.bincount(classes, minlength=number)
    if not balanced:
        return np.ones(number, np.float32)
    return (counts.sum() / (number * counts)).astype(np.float32)
