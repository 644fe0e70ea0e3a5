"""TFRecord shards as a `tf.data.Dataset` of uint8 images: to measure on, one pass (`dataset`), or to train on, endless.

tf.data reads, decodes and shuffles in its own threads, whichever backend Keras has. Every element is a dict: `image`
uint8 [S, S, 3] 0-255, `class` int64, `id` string (the image id), `view` int64 (0: the picture as it is stored), `copy`
int64 (0, or the number of the augmented copy that was stored).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.dataset import augment
from pipeline.dataset.presets import Policy
from pipeline.dataset.resize import decode_square
from pipeline.dataset.shard_index import Index, load_index
from pipeline.errors import DataError

FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/format": tf.io.FixedLenFeature([], tf.string),
    "image/height": tf.io.FixedLenFeature([], tf.int64),
    "image/width": tf.io.FixedLenFeature([], tf.int64),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    "image/class/text": tf.io.FixedLenFeature([], tf.string),
    "image/id": tf.io.FixedLenFeature([], tf.string),
    "image/group": tf.io.FixedLenFeature([], tf.string),
    "image/augmented": tf.io.FixedLenFeature([], tf.int64),
}
_READ = ("image/encoded", "image/id", "image/augmented")
_FILES_AT_ONCE = 16
_FILES_PER_WORKER = 8  # with fewer, whole files would be dealt out too unevenly; then every worker reads all of them
_BLOCK = 64  # records in turn from one file; one by one, handing them over takes a tenth of the time of decoding
_BUFFER_BYTES = 8 << 20  # of one file
# Within a file images lie in the order of their digests, so a small buffer is enough; of encoded images, as pixels of
# 224 x 224 take ten times the memory.
_SHUFFLED = 2048
_SHUFFLED_BYTES = 256 << 20
_REPEATS = 1 << 20  # apart are the views of an image that is repeated within one epoch


@dataclass(frozen=True)
class Worker:
    """One of several readers, each of which gets its own part of the images."""

    number: int = 0
    count: int = 1


ALONE = Worker()


def dataset(
    folder: Path,
    index: Index,
    keep: Mapping[str, int],
    *,
    size: int,
    splits: Collection[str] = ("train", "val", "test"),
    copies: bool = False,
    view: int = 0,
    policy: Policy | None = None,
    seed: int = 0,
    worker: Worker = ALONE,
    deterministic: bool = True,
) -> tf.data.Dataset:
    """The images whose id is a key of `keep`, with its value as their class, once, unbatched.

    Args:
        splits: only their files are opened.
        copies: give the augmented copies too.
        view, policy, seed: of a view other than 0, the crop that `augment.crop` draws is decoded.
        worker: gives this worker's part; the parts of all are disjoint and complete.
        deterministic: in the same order every time; otherwise as they come, which can be faster.
    """
    records = _chosen(folder, index, keep, splits, copies, worker, deterministic)
    decode = _decoder(size, policy, seed)
    return _with_options(
        records.map(lambda record: decode(record, tf.constant(view, tf.int64)), tf.data.AUTOTUNE), deterministic
    )


def batches(
    folder: Path,
    index: Index,
    keep: Mapping[str, int],
    *,
    size: int,
    batch_size: int,
    policy: Policy,
    seed: int,
    split: str = "train",
    copies: bool = True,
    balanced: bool = False,
    worker: Worker = ALONE,
    first_epoch: int = 0,
    deterministic: bool = True,
) -> tf.data.Dataset:
    """Endless batches for training, each epoch in a new order; images are cropped as the policy says.

    All else that `augment` does to them is left to the caller, who may carry it out on the accelerator; it follows
    from `id` and `view`.

    Args:
        balanced: every class equally often: an image comes N / (classes * images of its class) times an epoch, in
            expectation. Rare ones are repeated, in another view each time; of frequent ones some are left out.
        first_epoch: to continue with.

    As `dataset` otherwise. The last batch of an epoch is filled with images of the next one. Raises `DataError` if
    `keep` is empty.
    """
    if not keep:
        raise DataError("Expected images to train on, got none.", fix="add images, or lower shard.test_share")
    rates = _rates(keep, max(keep.values()) + 1) if balanced else None
    decode = _decoder(size, policy, seed)
    size_of = max((entry.bytes // max(1, entry.examples) for entry in index.files), default=1)
    buffer = int(np.clip(_SHUFFLED_BYTES // max(1, size_of), 16, _SHUFFLED))

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        # Of this function's graph alone, in place of the global seed: orders depend on `seed` and nothing else, and a
        # global seed of 0 takes no seeds that are tensors.
        tf.random.set_seed(1)
        records = _chosen(folder, index, keep, (split,), copies, worker, deterministic, order=(seed, number))
        views = records.map(lambda record: (record, number + 1))
        if rates is not None:
            views = views.flat_map(lambda record, view: _repeated(record, view, rates, seed))
        # An epoch is complete before the next one begins, so no image comes twice while another has not come yet.
        return views.shuffle(buffer, seed=seed + number, reshuffle_each_iteration=False)

    # One epoch at a time, as with flat_map, which would fill the next one's shuffle buffer only when this one is over.
    endless = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).interleave(
        epoch, cycle_length=1, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    pictures = endless.map(decode, tf.data.AUTOTUNE)
    return _with_options(pictures.batch(batch_size, drop_remainder=True), deterministic).prefetch(tf.data.AUTOTUNE)


@contextmanager
def damage_named(folder: Path, index: Index) -> Iterator[None]:
    """Inside, an error of TensorFlow over a shard or an image becomes a `DataError` that names it."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
        load_index(folder)
        for entry in index.files:
            for serialized in tf.data.TFRecordDataset(str(folder / entry.path), index.compression):
                example = tf.io.parse_single_example(serialized, FEATURES)
                try:
                    tf.io.decode_image(example["image/encoded"], channels=3, expand_animations=False)
                except tf.errors.InvalidArgumentError as error:
                    image_id = example["image/id"].numpy().decode()
                    raise DataError(
                        f"Expected a readable image in {folder / entry.path}, {image_id} is not: {error.message:.200}",
                        fix="take the image out of the source, or replace it, and report this as a fault of Refit",
                    ) from None
        raise


def _with_options(found: tf.data.Dataset, deterministic: bool) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = deterministic
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF  # `worker` says it
    return found.with_options(options)


def _chosen(
    folder: Path,
    index: Index,
    keep: Mapping[str, int],
    splits: Collection[str],
    copies: bool,
    worker: Worker,
    deterministic: bool,
    order: tuple[int, tf.Tensor] | None = None,
) -> tf.data.Dataset:
    """Parsed records, still encoded, with their `class`. `order`: seed and epoch, to draw the order of files from."""
    table = _table(keep)
    paths = [
        str(folder / entry.path) for entry in index.files if entry.split in splits and (copies or not entry.augmented)
    ]
    names = tf.data.Dataset.from_tensor_slices(tf.constant(paths, tf.string))
    by_file = len(paths) >= _FILES_PER_WORKER * worker.count
    if by_file:
        names = names.shard(worker.count, worker.number)
    if order is not None:
        seed, epoch = order
        names = names.shuffle(max(1, len(paths)), seed=seed + epoch, reshuffle_each_iteration=False)
    records = names.interleave(
        lambda path: tf.data.TFRecordDataset(path, index.compression, _BUFFER_BYTES),
        cycle_length=min(_FILES_AT_ONCE, max(1, len(paths))),
        block_length=_BLOCK,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=deterministic,
    )
    if not by_file:
        records = records.shard(worker.count, worker.number)
    wanted = {name: FEATURES[name] for name in _READ}

    def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        record = tf.io.parse_single_example(serialized, wanted)
        return record | {"class": table.lookup(record["image/id"])}

    return records.map(parse).filter(lambda record: record["class"] >= 0)


def _table(keep: Mapping[str, int]) -> tf.lookup.StaticHashTable:
    ids, classes = tf.constant(list(keep), tf.string), tf.constant(list(keep.values()), tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(ids, classes), default_value=-1)


def _rates(keep: Mapping[str, int], classes: int) -> tf.Tensor:
    """Float32 [classes]: how often an image of each class comes in an epoch."""
    counts = Counter(keep.values())
    rates = [len(keep) / (len(counts) * counts[number]) if counts[number] else 0.0 for number in range(classes)]
    return tf.constant(rates, tf.float32)


def _repeated(record: dict[str, tf.Tensor], view: tf.Tensor, rates: tf.Tensor, seed: int) -> tf.data.Dataset:
    rate = tf.gather(rates, record["class"])
    key = tf.strings.join([record["image/id"], tf.strings.as_string(view), str(seed)], separator="/")
    chance = tf.cast(tf.strings.to_hash_bucket_fast(key, 1 << 24), tf.float32) / 2.0**24
    times = tf.cast(tf.floor(rate + chance), tf.int64)
    return tf.data.Dataset.range(times).map(lambda number: (record, view + number * _REPEATS))


def _decoder(
    size: int, policy: Policy | None, seed: int
) -> Callable[[dict[str, tf.Tensor], tf.Tensor], dict[str, tf.Tensor]]:
    def decode(record: dict[str, tf.Tensor], view: tf.Tensor) -> dict[str, tf.Tensor]:
        box = None
        if policy is not None and policy.crop < 1:
            # An augmented copy has been cropped when it was made.
            whole = (view == 0) | (record["image/augmented"] > 0)
            drawn = augment.crop(record["image/id"], view, policy=policy, seed=seed)
            box = tf.where(whole, [0.0, 0.0, 1.0, 1.0], drawn)
        return {
            "image": decode_square(record["image/encoded"], size, box),
            "class": record["class"],
            "id": record["image/id"],
            "view": view,
            "copy": record["image/augmented"],
        }

    return decode
