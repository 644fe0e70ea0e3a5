"""Every current image with its class, group, split and fold: what training and evaluation go by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import manifest, splits
from pipeline.dataset.splits import Image, Placed
from pipeline.errors import DataError

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.string()),
        ("class", pa.int64()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("fold", pa.int64()),
        ("batch", pa.string()),
    ]
)


def read_placed(folder: Path, salt: str) -> dict[str, Placed]:
    """Places of earlier runs. Those that another salt drew do not count: it redraws every split."""
    placed = {}
    for path in manifest.batch_files(folder):
        table = pq.read_table(path)
        if table.schema.metadata[splits.SALT_KEY] == salt.encode():
            placed.update({row.pop("image_id"): Placed(**row) for row in table.to_pylist()})
    return placed


def placed_table(places: Mapping[str, Placed], salt: str) -> pa.Table:
    rows = [
        {"image_id": image_id, "group": place.group, "split": place.split, "reason": place.reason}
        for image_id, place in sorted(places.items())
    ]
    return pa.Table.from_pylist(rows, splits.SCHEMA.with_metadata({splits.SALT_KEY: salt.encode()}))


def class_names(labels: Sequence[str], earlier: Sequence[str]) -> tuple[str, ...]:
    """Classes in the order of their index: those known before keep theirs, new ones follow, sorted.

    If a class has no images any more all are sorted anew, since an index without images would be untrainable.
    """
    present = set(labels)
    kept = tuple(earlier) if set(earlier) <= present else ()
    return kept + tuple(sorted(present - set(kept)))


def assign(rows: pa.Table, places: Mapping[str, Placed], classes: Sequence[str], fold_count: int) -> pa.Table:
    """The assignment table, sorted by image id. `rows`: the current manifest rows, all of them placed."""
    index = {label: number for number, label in enumerate(classes)}
    ordered = sorted(rows.select(["image_id", "label", "batch"]).to_pylist(), key=lambda row: row["image_id"])
    trained = [row for row in ordered if places[row["image_id"]].split in {splits.TRAIN, splits.VAL}]
    numbers = splits.folds(
        # Each fold is to have its share of a class's training images, not only of the class.
        [f"{places[row['image_id']].split}/{row['label']}" for row in trained],
        [places[row["image_id"]].group for row in trained],
        fold_count,
    )
    fold = {row["image_id"]: int(number) for row, number in zip(trained, numbers, strict=True)}
    return pa.Table.from_pylist(
        [
            row
            | {
                "class": index[row["label"]],
                "group": places[row["image_id"]].group,
                "split": places[row["image_id"]].split,
                "fold": fold.get(row["image_id"], -1),
            }
            for row in ordered
        ],
        SCHEMA,
    )


def check_trainable(assignment: pa.Table) -> None:
    """Raises `DataError` naming the classes that some fold would leave without training images."""
    folds: dict[str, set[int]] = {}
    for row in assignment.select(["label", "split", "fold"]).to_pylist():
        found = folds.setdefault(row["label"], set())
        if row["split"] == splits.TRAIN:
            found.add(row["fold"])
    if scarce := sorted(label for label, found in folds.items() if len(found) < splits.MIN_TRAINING_GROUPS):
        raise DataError(
            f"Expected different training images of every class for at least two folds, found too few of: "
            f"{', '.join(scarce)}. Near duplicates count as one image.",
            fix="add other images of these classes, or take their folders out of the source",
        )


def images_of(rows: pa.Table) -> list[Image]:
    return [
        Image(row["image_id"], row["label"], row["group"])
        for row in rows.select(["image_id", "label", "group"]).to_pylist()
    ]


def summary(assignment: pa.Table) -> dict[str, object]:
    """metrics/shard.json: images per split, and per split and class."""
    counts: dict[str, dict[str, int]] = {
        split: {} for split in (splits.TRAIN, splits.VAL, splits.TEST, splits.QUARANTINE)
    }
    for row in assignment.select(["split", "label"]).to_pylist():
        counts[row["split"]][row["label"]] = counts[row["split"]].get(row["label"], 0) + 1
    return {
        "images": {split: sum(labels.values()) for split, labels in counts.items()},
        "classes": {split: dict(sorted(labels.items())) for split, labels in counts.items()},
        "groups": len(set(assignment["group"].to_pylist())),
    }
