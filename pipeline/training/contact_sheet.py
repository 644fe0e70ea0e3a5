"""What the model will see: training images, altered and filtered as in training, as strips of pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from pipeline import files
from pipeline.dataset import augment, encoding, mixing, presets, splits, store
from pipeline.dataset.presets import Policy
from pipeline.dataset.resize import decode_square
from pipeline.settings import Augment, Train
from pipeline.training import filters

ROWS = 8
VIEWS = 6  # the picture itself and five altered ones
TILE = 144  # pixels
_QUALITY = 85
_FILE = "{:02d}.jpg"


def choose(assignment: pa.Table, current: pa.Table, count: int = ROWS) -> list[Mapping[str, Any]]:
    """`image_id`, `label` and `notes` of at most `count` training images, of as many classes as there are, by id.

    Args:
        assignment: data/assignment.parquet; current: the manifest rows in force.
    """
    waiting: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    notes = dict(zip(current["image_id"].to_pylist(), current["notes"].to_pylist(), strict=True))
    for row in assignment.filter(pc.equal(assignment["split"], splits.TRAIN)).sort_by("image_id").to_pylist():
        if len(waiting[row["label"]]) < count:
            found = {"image_id": row["image_id"], "label": row["label"], "notes": notes[row["image_id"]] or ()}
            waiting[row["label"]].append(found)
    turns = [row for turn in range(count) for label in sorted(waiting) for row in waiting[label][turn : turn + 1]]
    return sorted(turns[:count], key=lambda row: str(row["label"]))


def write(folder: Path, rows: Sequence[Mapping[str, Any]], augmentation: Augment, train: Train) -> None:
    """One strip a row, `VIEWS` tiles of `TILE` pixels from left to right, and index.json (docs/formats.md).

    If the policy mixes images, a last strip without a label shows first views that are mixed.

    Args:
        rows: as `choose` gives them.

    Raises `DataError` if an image is gone from the store.
    """
    policy = presets.resolve(augmentation)
    index: list[dict[str, str]] = []
    first: list[NDArray[np.uint8]] = []

    def add(label: str, pictures: NDArray[np.uint8]) -> None:
        name = _FILE.format(len(index))
        _save(temporary / name, filters.apply(pictures, train.filters))
        index.append({"label": label, "file": name})

    with files.replacing_directory(folder) as temporary:
        for row in rows:
            cropped = _cropped(row, policy, augmentation.seed, train.input_size)
            first.append(cropped[1])
            altered = _altered(cropped, [row] * VIEWS, range(VIEWS), policy, augmentation.seed)
            add(row["label"], np.concatenate([cropped[:1], altered[1:]]))
        if policy.mixes and len(rows) > 1:
            add("", _mixed(np.stack(first), rows, policy, augmentation.seed))
        files.write_json(temporary / "index.json", {"rows": index, "views": VIEWS, "tile": TILE})


def _cropped(row: Mapping[str, Any], policy: Policy, seed: int, side: int) -> NDArray[np.uint8]:
    image = encoding.encode(store.verified(row["image_id"]), tuple(row["notes"]), max_side=None, quality=100)
    ids, views = tf.repeat(row["image_id"], VIEWS), tf.range(VIEWS, dtype=tf.int64)
    boxes = augment.crop(ids, views, policy=policy, seed=seed)
    return np.stack([decode_square(image.data, side, boxes[view] if view else None).numpy() for view in range(VIEWS)])


def _altered(
    pictures: NDArray[np.uint8], rows: Sequence[Mapping[str, Any]], views: Sequence[int], policy: Policy, seed: int
) -> NDArray[np.uint8]:
    altered: NDArray[np.uint8] = keras.ops.convert_to_numpy(
        augment.altered(
            pictures,
            [row["image_id"] for row in rows],
            list(views),
            [row["label"] not in policy.never_mirror for row in rows],
            policy=policy,
            seed=seed,
        )
    )
    return altered


def _mixed(
    pictures: NDArray[np.uint8], rows: Sequence[Mapping[str, Any]], policy: Policy, seed: int
) -> NDArray[np.uint8]:
    """One image of each of the first steps, as in training: mixed, then altered."""
    count = len(pictures)
    classes, weights = tf.zeros(count, tf.int64), tf.ones(count)
    chosen = [step % count for step in range(VIEWS)]
    mixed = [
        mixing.mix(pictures, classes, weights, tf.constant(step), policy=policy, seed=seed, number=1)[0][place].numpy()
        for step, place in enumerate(chosen)
    ]
    return _altered(np.stack(mixed), [rows[place] for place in chosen], [1] * VIEWS, policy, seed)


def _save(path: Path, pictures: NDArray[np.uint8]) -> None:
    tiles = [Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.BILINEAR) for picture in pictures]
    strip = Image.new("RGB", (TILE * len(tiles), TILE))
    for number, tile in enumerate(tiles):
        strip.paste(tile, (TILE * number, 0))
    strip.save(path, "JPEG", quality=_QUALITY)
