"""The records of every batch, from the tables that say what is known of each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.dataset import encoding, splits
from pipeline.dataset.shards import Layout, Row


def rows(
    assignment: pa.Table, current: pa.Table, measured: pa.Table, groups: Mapping[str, str], layout: Layout
) -> dict[str, list[Row]]:
    """Batch name to its rows: every image that is in a split, and the augmented copies of it.

    Args:
        assignment: data/assignment.parquet.
        current: the manifest rows in force; measured: their feature rows.
        groups: image id to the group that it was placed with. Today's may change, and with it files that need not.
    """
    sizes = dict(zip(measured["image_id"].to_pylist(), _columns(measured, "height", "width"), strict=True))
    known = dict(zip(current["image_id"].to_pylist(), _columns(current, "notes", "bytes"), strict=True))
    found: dict[str, list[Row]] = defaultdict(list)
    for row in assignment.to_pylist():
        if row["split"] == splits.QUARANTINE:
            continue
        image_id = row["image_id"]
        notes, stored = known[image_id]
        height, width = sizes[image_id]
        size = encoding.size(stored, height, width, layout.max_side)
        found[row["batch"]] += [
            Row(
                image_id,
                row["class"],
                row["label"],
                groups[image_id],
                row["split"],
                tuple(notes or ()),
                size,
                copy,
            )
            for copy in range(row["copies"] + 1)
        ]
    return found


def _columns(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))
