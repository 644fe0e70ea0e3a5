"""Shards and an assignment of coloured pictures, written as the stage before training writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf

from pipeline import files
from pipeline.dataset import assignment

CLASSES = ("blue", "green", "red")
PLAN = [*[("train", i % 2) for i in range(8)], ("val", 0), ("val", 1), ("test", -1)]  # of each class


def write(root: Path) -> pa.Table:
    rows = [
        {
            "image_id": f"{number * len(PLAN) + place:064x}",
            "label": label,
            "class": number,
            "group": f"{label}-{place}",
            "split": split,
            "fold": fold,
            "batch": "0001",
        }
        for number, label in enumerate(CLASSES)
        for place, (split, fold) in enumerate(PLAN)
    ]
    entries = []
    for split in ("train", "val", "test"):
        chosen = [row for row in rows if row["split"] == split]
        path = root / f"data/shards/{split}/{split}-0001-00000-of-00001.tfrecord"
        path.parent.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in chosen:
                writer.write(_example(row["image_id"], row["class"]))
        size = path.stat().st_size
        relative = str(path.relative_to(root / "data/shards"))
        entries.append(
            {"path": relative, "split": split, "batch": "0001", "examples": len(chosen), "bytes": size, "sha256": ""}
        )
    files.write_json(
        root / "data/shards/index.json", {"classes": list(CLASSES), "files": entries, "rows_digest": {"0001": ""}}
    )
    table = pa.Table.from_pylist(rows, assignment.SCHEMA)
    files.write_table(root / "data/assignment.parquet", table)
    return table


def _example(image_id: str, number: int) -> bytes:
    pixels = np.random.default_rng(int(image_id, 16)).integers(0, 140, (30, 40, 3), np.uint8)
    pixels[:, :, 2 - number] += 100
    features = {
        "image/encoded": tf.io.encode_png(pixels).numpy(),
        "image/id": image_id.encode(),
    }
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in features.items()
            }
        )
    ).SerializeToString()
