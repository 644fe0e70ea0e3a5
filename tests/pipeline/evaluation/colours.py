"""A run whose right answers are known: each class is a colour, each model names the strongest channel."""

from __future__ import annotations

import io
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.dataset import assignment, manifest, shards, store

CLASSES = ("blue", "green", "red")
CHANNEL = {"red": 0, "green": 1, "blue": 2}
# Colour of the picture, its label, split and fold: of the test images one red one is labelled green.
IMAGES = [
    *[(colour, colour, "train", fold) for colour in CLASSES for fold in (0, 1) for _ in range(2)],
    ("red", "blue", "val", 1),
    *[(colour, colour, "test", -1) for colour in CLASSES for _ in range(2)],
    ("red", "green", "test", -1),
    ("green", "green", "quarantine", -1),
]


def model(path: Path, classes: tuple[str, ...], size: int) -> None:
    inputs = keras.Input((size, size, 3), dtype="uint8")
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 64)(inputs))
    dense = keras.layers.Dense(len(classes), activation="softmax")
    network = keras.Model(inputs, dense(means))
    kernel = np.zeros((3, len(classes)), np.float32)
    for number, name in enumerate(classes):
        kernel[CHANNEL[name], number] = 1
    dense.set_weights([kernel, np.zeros(len(classes), np.float32)])
    path.parent.mkdir(parents=True, exist_ok=True)
    network.save(path)


def put(number: int, colour: str) -> str:
    pixels = np.random.default_rng(number).integers(0, 60, (20, 30, 3), dtype=np.uint8)
    pixels[..., CHANNEL[colour]] = 220
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return store.put(buffer.getvalue())


def write(root: Path) -> pa.Table:
    """Models and shards below `root`, images in the store. Returns the assignment."""
    rows = [
        {
            "image_id": put(number, colour),
            "label": label,
            "class": CLASSES.index(label),
            "group": f"group-{number}",
            "split": split,
            "fold": fold,
            "batch": "0001",
            "reason": None,
            "copies": 0,
        }
        for number, (colour, label, split, fold) in enumerate(IMAGES)
    ]
    written = [
        shards.Row(row["image_id"], row["class"], row["label"], row["group"], row["split"], (), 1000)
        for row in rows
        if row["split"] != "quarantine"
    ]
    layout = shards.Layout(target_bytes=2**20, files=None, max_side=None, quality=90, compression="none")
    shards.write(root / "data/shards", {"0001": written}, CLASSES, layout, threads=1)
    for part, size in (("fold-0", 16), ("fold-1", 16), ("final", 24)):
        model(root / "models" / part / "model.keras", CLASSES, size)
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["image_id"]), assignment.SCHEMA)


def manifest_rows() -> pa.Table:
    """Rows in force, of all pictures; their bytes must be in the store, where they are put once."""
    rows = [{"image_id": image_id, "uri": its_uri, "removed": False} for image_id, its_uri in uris().items()]
    return pa.Table.from_pylist(rows, manifest.SCHEMA)


def features() -> pa.Table:
    """Feature rows of all pictures, as far as slices take them."""
    ids = list(uris())
    numbers = range(len(ids))
    return pa.table(
        {
            "image_id": ids,
            "width": [30] * len(ids),
            "height": [20 + number % 2 for number in numbers],
            "brightness": [number / len(ids) for number in numbers],
        }
    )


def attributes() -> pa.Table:
    """A column `camera` of all pictures but the last."""
    ids = list(uris())[:-1]
    return pa.table({"image_id": ids, "camera": ["left" if number % 3 else "right" for number in range(len(ids))]})


def uri(number: int) -> str:
    """Of the picture at this place in `IMAGES`."""
    return f"/photos/{number}.png"


def uris() -> dict[str, str]:
    """Image id to uri, of all pictures; their bytes must be in the store, where they are put once."""
    return {put(number, colour): uri(number) for number, (colour, *_) in enumerate(IMAGES)}
