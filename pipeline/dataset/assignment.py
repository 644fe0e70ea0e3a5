"""Every current image with its class, group, split and fold: what training and evaluation go by."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import files
from pipeline.dataset import manifest, oversampling, splits
from pipeline.dataset.splits import Image, Placed
from pipeline.errors import DataError, SettingsError
from pipeline.settings import Augment

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.string()),
        ("class", pa.int64()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("fold", pa.int64()),
        ("batch", pa.string()),
        ("reason", pa.string()),
        ("copies", pa.int64()),
    ]
)


def read_placed(folder: Path, salt: str) -> dict[str, Placed]:
    """Places of earlier runs. Those that another salt drew do not count: it redraws every split.

    An image has the place that was recorded first. Quarantine is no place; Refit used to record it.
    """
    placed: dict[str, Placed] = {}
    for path in manifest.batch_files(folder):
        for image_id, place in read_file(path, salt).items():
            placed.setdefault(image_id, place)
    return placed


def record(path: Path, places: Mapping[str, Placed], salt: str) -> int:
    """Add the places that are in a split to those in the file of a batch. Returns how many there were to add."""
    new = {image_id: place for image_id, place in places.items() if place.split != splits.QUARANTINE}
    if new:
        # A stage that is run again, or with other settings, may place more images of the same batch.
        earlier = read_file(path, salt) if path.exists() else {}
        rows = [
            {"image_id": image_id, "group": place.group, "split": place.split}
            for image_id, place in sorted((new | earlier).items())
        ]
        metadata = {splits.SALT_KEY: salt.encode()}
        files.write_table(path, pa.Table.from_pylist(rows, splits.SCHEMA.with_metadata(metadata)))
    return len(new)


def read_file(path: Path, salt: str) -> dict[str, Placed]:
    """The places in one file of data/splits; none if another salt drew them."""
    table = pq.read_table(path, columns=splits.SCHEMA.names)
    if table.schema.metadata[splits.SALT_KEY] != salt.encode():
        return {}
    return {
        row["image_id"]: Placed(row["group"], row["split"])
        for row in table.to_pylist()
        if row["split"] != splits.QUARANTINE
    }


def class_names(labels: Sequence[str], earlier: Sequence[str]) -> tuple[str, ...]:
    """Classes in the order of their index: those known before keep theirs, new ones follow, sorted.

    If a class has no images any more all are sorted anew, since an index without images would be untrainable.
    """
    present = set(labels)
    kept = tuple(earlier) if set(earlier) <= present else ()
    return kept + tuple(sorted(present - set(kept)))


def assign(
    rows: pa.Table, places: Mapping[str, Placed], groups: Mapping[str, str], classes: Sequence[str], fold_count: int
) -> pa.Table:
    """The assignment table, sorted by image id.

    Args:
        rows: the current manifest rows.
        places: image id to place, of all of them.
        groups: image id to group, of those that are in a split.
    """
    index = {label: number for number, label in enumerate(classes)}
    ordered = sorted(rows.select(["image_id", "label", "batch"]).to_pylist(), key=lambda row: row["image_id"])
    trained = [row for row in ordered if places[row["image_id"]].split in {splits.TRAIN, splits.VAL}]
    numbers = splits.folds(
        # Each fold is to have its share of a class's training images, not only of the class.
        [f"{places[row['image_id']].split}/{row['label']}" for row in trained],
        [groups[row["image_id"]] for row in trained],
        fold_count,
    )
    fold = {row["image_id"]: int(number) for row, number in zip(trained, numbers, strict=True)}
    return pa.Table.from_pylist(
        [
            row
            | {
                "class": index[row["label"]],
                "group": groups.get(row["image_id"], row["image_id"]),
                "split": places[row["image_id"]].split,
                "fold": fold.get(row["image_id"], -1),
                "reason": places[row["image_id"]].reason,
                "copies": 0,
            }
            for row in ordered
        ],
        SCHEMA,
    )


def with_copies(assignment: pa.Table, settings: Augment) -> pa.Table:
    """The table with the number of augmented copies that the shards are to hold of each training image.

    Raises `SettingsError` if a label that is never to be mirrored is none: its images would be mirrored in silence.
    """
    labels = sorted(set(assignment["label"].to_pylist()))
    for name in settings.never_mirror:
        if name not in labels:
            close = difflib.get_close_matches(name, labels, n=1)
            raise SettingsError(
                f"augment.never_mirror: expected labels of the images, received {name!r}"
                + (f", did you mean {close[0]!r}?" if close else "."),
                fix="correct the label, or take it out",
            )
    trained = assignment.filter(pc.equal(assignment["split"], splits.TRAIN)).select(["image_id", "label", "batch"])
    number = oversampling.copies(trained.to_pylist(), balance=settings.balance, most=settings.max_copies)
    column = pa.array([number.get(image_id, 0) for image_id in assignment["image_id"].to_pylist()], pa.int64())
    return assignment.set_column(SCHEMA.get_field_index("copies"), SCHEMA.field("copies"), column)


def check_trainable(assignment: pa.Table) -> None:
    """Raises `DataError` naming the classes that some fold would leave without training images."""
    folds: dict[str, set[int]] = {}
    kept_out: dict[str, Counter[str]] = {}
    for row in assignment.select(["label", "split", "fold", "reason"]).to_pylist():
        found = folds.setdefault(row["label"], set())
        if row["split"] == splits.TRAIN:
            found.add(row["fold"])
        elif row["split"] == splits.QUARANTINE:
            kept_out.setdefault(row["label"], Counter())[row["reason"]] += 1
    if scarce := sorted(label for label, found in folds.items() if len(found) < splits.MIN_TRAINING_GROUPS):
        reasons = sum((kept_out[label] for label in scarce if label in kept_out), Counter[str]())
        quarantined = "; ".join(f"{count} in quarantine: {reason}" for reason, count in reasons.most_common())
        raise DataError(
            f"Expected different training images of every class for at least two folds, found too few of: "
            f"{', '.join(scarce)}. Near duplicates count as one image{f' ({quarantined})' if quarantined else ''}.",
            fix="add other images of these classes, or take their folders out of the source"
            + (", or mend the groups and duplicates that put images into quarantine" if quarantined else ""),
        )


def images_of(rows: pa.Table) -> list[Image]:
    return [
        Image(row["image_id"], row["label"], row["group"])
        for row in rows.select(["image_id", "label", "group"]).to_pylist()
    ]


def gone(batches: Mapping[str, pa.Table]) -> list[Image]:
    """The images of the manifest that are in force no more, as they last were."""
    present = set(manifest.current(batches)["image_id"].to_pylist())
    last = {image.image_id: image for image in images_of(manifest.concatenate(batches, manifest.SCHEMA))}
    return [image for image_id, image in last.items() if image_id not in present]
