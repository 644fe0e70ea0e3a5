"""Shards and an assignment of coloured pictures, written as the stage before training writes them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import files, settings
from pipeline.dataset import assignment, copies, shards, store
from pipeline.dataset.shards import Layout, Row

CLASSES = ("blue", "green", "red")
PLAN = [*[("train", i % 2) for i in range(8)], ("val", 0), ("val", 1), ("test", -1)]  # of each class
LAYOUT = Layout(target_bytes=2**20, files=None, max_side=None, quality=90, compression="none")


def write(root: Path, of_red: int = 0) -> pa.Table:
    """Returns the assignment. `of_red`: so many augmented copies are stored of each red training image."""
    rows = [
        {
            "image_id": _put(number * len(PLAN) + place, number),
            "label": label,
            "class": number,
            "group": f"{label}-{place}",
            "split": split,
            "fold": fold,
            "batch": "0001",
            "copies": of_red if label == "red" and split == "train" else 0,
        }
        for number, label in enumerate(CLASSES)
        for place, (split, fold) in enumerate(PLAN)
    ]
    written = []
    for row in rows:
        image = Row(row["image_id"], row["class"], row["label"], row["group"], row["split"], (), 4000)
        written += [replace(image, copy=copy) for copy in range(row["copies"] + 1)]
    shipped = settings.load(settings.code_root() / "params.yaml").augment
    shards.write(root / "data/shards", {"0001": written}, CLASSES, LAYOUT, threads=2, alter=copies.maker(shipped, 90))
    table = pa.Table.from_pylist(rows, assignment.SCHEMA)
    files.write_table(root / "data/assignment.parquet", table)
    files.write_json(root / "warm_start.json", {})
    return table


def _put(seed: int, number: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 140, (30, 40, 3), np.uint8)
    pixels[:, :, 2 - number] += 100
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return store.put(buffer.getvalue())
