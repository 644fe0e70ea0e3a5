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
from pipeline.training.feature_cache import Shelf, Stored
from pipeline.training.roles import Item

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_COPIES_APART = 1 << 40  # more than there are views of an image
_PART_BYTES = 256 << 20  # of what is computed are kept at once, so that little is lost with a killed process


@dataclass(frozen=True)
class Alteration:
    """Which views are made of an image. `mirrored`: for each class, whether its images may be mirrored."""

    altered: int
    seed: int
    policy: Policy
    mirrored: tuple[bool, ...]


def alteration(altered: int, settings: Augment, classes: Sequence[str]) -> Alteration:
    policy = presets.resolve(settings)
    mirrored = tuple(name not in policy.never_mirror for name in classes)
    return Alteration(altered if policy.alters else 0, settings.seed, policy, mirrored)


def embed(
    network: keras.Model,
    shelves: Mapping[str, Sequence[Shelf]],
    images: Callable[[int, Mapping[str, int]], tf.data.Dataset],
    items: Sequence[Item],
    alteration: Alteration,
    *,
    batch_size: int,
    what: str,
) -> dict[str, Stored]:
    """Run a frozen network once over every view of `items` that is not on the shelves yet, and keep what it gives.

    Args:
        network: images uint8 [N, S, S, 3] to a dict of outputs.
        shelves: for each output, one for each view.
        images: gives the images of a view, out of those with these ids, as `records.dataset` does.
    """
    names = {(item.image_id, item.copy): _name(item, alteration) for item in items}
    number = {item.image_id: item.number for item in items}
    missing = []
    for view in range(alteration.altered + 1):
        lacking = {name for of_view in shelves.values() for name in of_view[view].missing(names.values())}
        missing.append({key for key, name in names.items() if name in lacking})
    total = sum(-(-len(of_view) // batch_size) for of_view in missing)
    batches = (
        (view, batch)
        for view, wanted in enumerate(missing)
        if wanted
        for batch in _only(images(view, {image_id: number[image_id] for image_id, _ in wanted}), wanted)
        .batch(batch_size)
        .prefetch(2)
        .as_numpy_iterator()
    )
    pending: dict[int, list[tuple[list[str], dict[str, NDArray[Any]]]]] = {}
    for view, batch in track(batches, total=total, what=what) if total else ():
        pictures = _of_view(batch, view, alteration)
        # A smaller last batch would make Keras trace the network anew, which costs more than the padding. And what
        # an image gives does not depend on how many others there are with it.
        padded = np.concatenate([pictures, np.repeat(pictures[-1:], batch_size - len(pictures), axis=0)])
        found = {name: _half(rows[: len(pictures)]) for name, rows in network.predict_on_batch(padded).items()}
        keys = zip((image_id.decode() for image_id in batch["id"]), batch["copy"].tolist(), strict=True)
        rows = pending.setdefault(view, [])
        rows.append(([names[key] for key in keys], found))
        if sum(array.nbytes for _, outputs in rows for array in outputs.values()) >= _PART_BYTES:
            _keep(pending.pop(view), view, shelves)
    for view, rows in pending.items():
        _keep(rows, view, shelves)
    return {name: Stored(of_view, list(names.values())) for name, of_view in shelves.items()}


def _name(item: Item, alteration: Alteration) -> str:
    """Of what a network gives for an image. Whether that is mirrored depends on its class too."""
    mirrored = "" if alteration.mirrored[item.number] else "/unmirrored"
    return f"{item.image_id}/{item.copy}{mirrored}"


def _only(found: tf.data.Dataset, wanted: set[tuple[str, int]]) -> tf.data.Dataset:
    """The images that are wanted, of all copies of them."""
    keys = tf.constant([f"{image_id}/{copy}" for image_id, copy in sorted(wanted)])
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, tf.ones(len(keys), tf.int64)), 0)
    return found.filter(
        lambda image: table.lookup(tf.strings.join([image["id"], "/", tf.strings.as_string(image["copy"])])) > 0
    )


def _half(rows: NDArray[Any]) -> NDArray[Any]:
    """As float16: its rounding, 5e-4, is far below what alteration changes, and there can be thousands of features."""
    return np.clip(rows.astype(np.float32), -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)


def _keep(
    pieces: Sequence[tuple[list[str], dict[str, NDArray[Any]]]], view: int, shelves: Mapping[str, Sequence[Shelf]]
) -> None:
    names = [name for of_batch, _ in pieces for name in of_batch]
    for output, of_view in shelves.items():
        new = set(of_view[view].missing(names))
        chosen = np.array([name in new for name in names])
        if chosen.any():
            rows = np.concatenate([outputs[output] for _, outputs in pieces])
            of_view[view].add([name for name in names if name in new], rows[chosen])


def _of_view(batch: Mapping[str, NDArray[Any]], view: int, alteration: Alteration) -> NDArray[np.uint8]:
    if view == 0:
        return batch["image"]
    altered: NDArray[np.uint8] = keras.ops.convert_to_numpy(
        augment.altered(
            batch["image"],
            batch["id"],
            _view(batch),
            np.array(alteration.mirrored)[batch["class"]],
            policy=alteration.policy,
            seed=alteration.seed,
        )
    )
    return altered


class Shuffled(keras.utils.PyDataset):
    """An epoch: every image once, in one of its views, in its own order; ({name: float32}, class, weight) batches.

    Order and views follow from the seed and the number of the epoch, so training can go on with any of them. What
    does not fill a batch is left out.
    """

    def __init__(
        self,
        inputs: Mapping[str, Stored],
        classes: NDArray[np.int64],
        weights: NDArray[np.float32],
        *,
        batch_size: int,
        seed: int,
        passes: int = 1,
        balanced: bool = False,
        epoch: int = 0,
    ) -> None:
        """`passes`: so many times each image comes. `balanced`: every class equally often instead, in expectation."""
        super().__init__()
        self.inputs, self.classes, self.weights = inputs, classes, weights
        self.passes, self.balanced = passes, balanced
        self.batch_size = min(batch_size, len(classes) * passes)
        self._order(seed, epoch)

    def __len__(self) -> int:
        return len(self.classes) * self.passes // self.batch_size

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        images = self.images[rows]
        inputs = {name: stored.take(self.views[rows], images) for name, stored in self.inputs.items()}
        return inputs, self.classes[images], self.weights[self.classes[images]]

    def _order(self, seed: int, epoch: int) -> None:
        random = np.random.default_rng([seed, epoch])
        views, count = len(next(iter(self.inputs.values()))), len(self.classes)
        images = np.repeat(np.arange(count), self.passes)
        if self.balanced:
            shares = 1 / np.bincount(self.classes)[self.classes]
            steps = np.cumsum(shares[order := random.permutation(count)])
            images = order[np.searchsorted(steps / steps[-1], (np.arange(len(images)) + random.random()) / len(images))]
        shuffled = images[random.permutation(len(images))]
        # Each time an image comes it takes another view, as long as there are views left.
        first = random.permuted(np.tile(np.arange(views), (count, 1)), axis=1)
        times = _occurrences(shuffled)
        self.images, self.views = shuffled, first[shuffled, times % views]


def _occurrences(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each value has come before: [3, 5, 3, 3] gives [0, 0, 1, 2]."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1])
    within = np.arange(len(values)) - np.repeat(starts, np.diff([*starts, len(values)]))
    result = np.empty_like(within)
    result[order] = within
    return result


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


def altering(model: keras.Model, alteration: Alteration) -> keras.Model:
    """`model` of images uint8 [N, S, S, 3], with its input as `online` gives it."""
    shape = model.input.shape[1:]
    draws = augment.draw(
        tf.constant([""]), tf.constant([1]), [True], policy=alteration.policy, seed=0, height=shape[0], width=shape[1]
    )
    inputs = {"image": keras.Input(shape, dtype="uint8", name="image")} | {
        name: keras.Input(array.shape[1:], dtype="float32", name=name) for name, array in draws.items()
    }
    return keras.Model(inputs, model(Altered(alteration.policy.fill)(inputs)))


def online(
    batches: tf.data.Dataset, weights: NDArray[np.float32], alteration: Alteration, *, first_step: int = 0
) -> tf.data.Dataset:
    """Endless ({image, draws}, class or probabilities, weight) batches from those of `records.batches`.

    `first_step`: number of the first batch, which the mixing of images follows from.
    """

    def prepare(step: tf.Tensor, found: dict[str, tf.Tensor]) -> tuple[Any, ...]:
        inputs, classes = _inputs(found, alteration)
        weight = tf.gather(weights, classes)
        if not alteration.policy.mixes:
            return inputs, classes, weight
        image, targets, weight = mixing.mix(
            inputs["image"], classes, weight, step, policy=alteration.policy, seed=alteration.seed, number=len(weights)
        )
        return inputs | {"image": image}, targets, weight

    return batches.enumerate(first_step).map(prepare, tf.data.AUTOTUNE).prefetch(2)


def unaltered(images: tf.data.Dataset, count: int, alteration: Alteration, *, batch_size: int) -> tf.data.Dataset:
    """({image, draws}, class) batches of all `count` images, once, in their order; a model in use ignores the draws."""
    batches = images.batch(batch_size).map(lambda found: _inputs(found, alteration)).prefetch(2)
    # Shards are filtered, so tf.data does not know the length, and Keras would warn that data ran out.
    return batches.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))


def _inputs(found: Mapping[str, tf.Tensor], alteration: Alteration) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    draws = augment.draw(
        found["id"],
        _view(found),
        tf.gather(list(alteration.mirrored), found["class"]),
        policy=alteration.policy,
        seed=alteration.seed,
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
