"""TFRecord shards: written per batch and split, rewritten only when their rows change, read as uint8 images.

Files and keys: docs/formats.md. Within a batch the file of an image follows from its id, and so does its place
in the file: content is shuffled by hash, so readers need only a small shuffle buffer.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from pipeline import files
from pipeline.dataset import images, store
from pipeline.dataset.resize import resize_uint8
from pipeline.errors import DataError
from pipeline.progress import track

READERS_DIFFER = 4.0  # mean over pixels, 0-255: the two libraries' JPEG decoders differ by less than one
FORMAT_VERSION = 1  # part of every batch's digest: raise it when the written bytes change
INDEX = "index.json"


@dataclass(frozen=True)
class Row:
    """One image to write. `label` is the index of `text` in the classes."""

    image_id: str
    label: int
    text: str
    group: str
    split: str


@dataclass(frozen=True)
class File:
    path: str  # relative to the folder of the index
    split: str
    batch: str
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    classes: tuple[str, ...]
    files: tuple[File, ...]
    rows_digest: Mapping[str, str]  # batch name to the digest of what its files were written from


def read_index(folder: Path) -> Index:
    """`index.json` as it is; an empty index if there is none."""
    if not (folder / INDEX).exists():
        return Index((), (), {})
    content = files.read_json(folder / INDEX)
    return Index(tuple(content["classes"]), tuple(File(**entry) for entry in content["files"]), content["rows_digest"])


def load_index(folder: Path) -> Index:
    """The index, for readers. Raises `DataError` if a file that it lists is missing or has another size."""
    index = read_index(folder)
    for entry in index.files:
        path = folder / entry.path
        if (size := _size(path)) != entry.bytes:
            found = "nothing" if size is None else f"{size} bytes"
            raise DataError(
                f"Expected the shard {path} with {entry.bytes} bytes, found {found}.",
                fix="remove data/shards of this run and run its shard stage again",
            )
    return index


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def write(folder: Path, batches: Mapping[str, Sequence[Row]], classes: Sequence[str], *, target_bytes: int) -> Index:
    """Bring the shards in `folder` up to date with `batches` and write the index, last.

    A batch whose rows are those of the existing index is left alone. Raises `DataError` if an image is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = read_index(folder)
    digests = {name: _digest(rows, target_bytes) for name, rows in batches.items()}
    # A writer that was killed may have replaced some files of a batch already.
    broken = {entry.batch for entry in old.files if _size(folder / entry.path) != entry.bytes}
    stale = [name for name in batches if name in broken or old.rows_digest.get(name) != digests[name]]
    kept = [entry for entry in old.files if entry.batch in digests and entry.batch not in stale]
    plans = [plan for name in stale for plan in _plan(name, batches[name], target_bytes)]
    written = []
    for path, rows in track(plans, total=len(plans), what="shard"):
        written.append(_write_file(folder, path, rows))
    index = Index(tuple(classes), tuple(sorted((*kept, *written), key=lambda entry: entry.path)), digests)
    files.write_json(folder / INDEX, asdict(index))
    listed = {folder / entry.path for entry in index.files}
    for found in folder.glob("*/*"):  # of earlier rows, or of a writer that was killed
        if found.suffix == ".tfrecord" and found not in listed:
            found.unlink()
    return index


def _digest(rows: Sequence[Row], target_bytes: int) -> str:
    content = [FORMAT_VERSION, target_bytes, *sorted(tuple(asdict(row).values()) for row in rows)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _plan(batch: str, rows: Sequence[Row], target_bytes: int) -> list[tuple[str, list[Row]]]:
    """The files of one batch: relative path and rows, in the order in which they are written."""
    plans = []
    for split in sorted({row.split for row in rows}):
        chosen = sorted((row for row in rows if row.split == split), key=lambda row: row.image_id)
        size = sum(store.path(row.image_id).stat().st_size for row in chosen)
        count = max(1, -(-size // target_bytes))
        for number in range(count):
            path = f"{split}/{split}-{batch}-{number:05d}-of-{count:05d}.tfrecord"
            plans.append((path, [row for row in chosen if int(row.image_id[-8:], 16) % count == number]))
    return plans


def _write_file(folder: Path, relative: str, rows: Sequence[Row]) -> File:
    target = folder / relative
    with files.replacing(target) as temporary:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for row in rows:
                writer.write(_example(row).SerializeToString(deterministic=True))
        digest, size = files.sha256(temporary), temporary.stat().st_size
    split, batch = target.name.split("-")[:2]
    return File(relative, split, batch, len(rows), size, digest)


def _example(row: Row) -> tf.train.Example:
    data = store.get(row.image_id)
    decoded = images.decode(data, sys.maxsize)  # its size was judged at ingest
    encoded, name = images.encode(decoded, data)
    if not _reads_alike(encoded, decoded.image):
        encoded, name = images.encode(replace(decoded, as_stored=False, format="PNG"), data)
    features = {
        "image/encoded": _bytes(encoded),
        "image/format": _bytes(name.encode()),
        "image/height": _int64(decoded.image.height),
        "image/width": _int64(decoded.image.width),
        "image/class/label": _int64(row.label),
        "image/class/text": _bytes(row.text.encode()),
        "image/id": _bytes(row.image_id.encode()),
        "image/group": _bytes(row.group.encode()),
        "image/augmented": _int64(0),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def _reads_alike(encoded: bytes, image: Image.Image) -> bool:
    """Whether TensorFlow sees what Pillow saw: of slightly damaged files one may read what the other refuses."""
    try:
        seen = tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError:
        return False
    expected = np.asarray(image.convert("RGB"), np.float32)
    return seen.shape == expected.shape and float(np.abs(seen - expected).mean()) <= READERS_DIFFER


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int64(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/id": tf.io.FixedLenFeature([], tf.string),
}


def dataset(
    folder: Path,
    index: Index,
    keep: Mapping[str, int],
    *,
    size: int,
    splits: Collection[str] = ("train", "val", "test"),
) -> tf.data.Dataset:
    """The images whose id is a key of `keep`, with its value as their class, in the order of the files.

    Only the files of `splits` are opened.

    Returns:
        Unbatched (image uint8 [size, size, 3] 0-255, class int64 [], image id string []).
    """
    ids = tf.constant(list(keep), tf.string)
    classes = tf.constant(list(keep.values()), tf.int64)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(ids, classes), default_value=-1)

    def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        return tf.io.parse_single_example(serialized, FEATURES)

    def decode(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = tf.io.decode_image(example["image/encoded"], channels=3, expand_animations=False)
        image = tf.ensure_shape(resize_uint8(image, size), (size, size, 3))
        return image, table.lookup(example["image/id"]), example["image/id"]

    paths = [str(folder / entry.path) for entry in index.files if entry.split in splits]
    return (
        tf.data.TFRecordDataset(paths)
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        .filter(lambda example: table.lookup(example["image/id"]) >= 0)
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    )
