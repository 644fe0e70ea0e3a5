"""metrics/shard.json: what the splits have of every class, what they were to have, and why that is not the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline import wording
from pipeline.dataset import splits
from pipeline.dataset.splits import QUARANTINE, TEST, TRAIN, VAL, Shares

IN_USE = (TRAIN, VAL, TEST)


@dataclass
class _Class:
    images: Counter[str] = field(default_factory=Counter)  # split to images
    groups: Counter[str] = field(default_factory=Counter)  # name to images of this class, of groups in use
    free: set[str] = field(default_factory=set)  # groups that this run placed

    @property
    def used(self) -> int:
        return self.groups.total()


def summary(assignment: pa.Table, shares: Shares, new: Collection[str]) -> dict[str, Any]:
    """The content of metrics/shard.json (docs/formats.md). `new`: ids of the images that this run has placed."""
    rows = assignment.select(["image_id", "label", "group", "split", "fold", "reason"]).to_pylist()
    classes: dict[str, _Class] = defaultdict(_Class)
    members: Counter[str] = Counter()
    groups: dict[str, set[str]] = {split: set() for split in IN_USE}
    for row in rows:
        found = classes[row["label"]]
        found.images[row["split"]] += 1
        if row["split"] != QUARANTINE:
            found.groups[row["group"]] += 1
            members[row["group"]] += 1
            groups[row["split"]].add(row["group"])
            if row["image_id"] in new:
                found.free.add(row["group"])
    counts = {
        split: {label: found.images[split] for label, found in sorted(classes.items()) if found.images[split]}
        for split in (*IN_USE, QUARANTINE)
    }
    images = {split: sum(by_label.values()) for split, by_label in counts.items()}
    used = sum(members.values())
    wanted = {TRAIN: 1 - shares.val - shares.test, VAL: shares.val, TEST: shares.test}
    return {
        "images": images,
        "classes": counts,
        "shares": {
            split: {"wanted": round(wanted[split], 6), "got": images[split] / used if used else None}
            for split in IN_USE
        },
        "groups": len(members),
        "groups_in": {split: len(names) for split, names in groups.items()},
        "largest_group": max(members.values(), default=0),
        "folds": _folds(rows),
        "quarantined": dict(Counter(row["reason"] or "unknown" for row in rows if row["split"] == QUARANTINE)),
        "shortfalls": list(_shortfalls(classes, shares, members)),
    }


def _folds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per fold the images of train and val, and how many it has of each class."""
    found: dict[int, dict[str, Counter[str]]] = {}
    for row in rows:
        if row["fold"] >= 0:
            fold = found.setdefault(row["fold"], {TRAIN: Counter(), VAL: Counter()})
            fold[row["split"]][row["label"]] += 1
    return [
        {
            "fold": number,
            "images": {split: labels.total() for split, labels in fold.items()},
            "classes": dict(sorted((fold[TRAIN] + fold[VAL]).items())),
        }
        for number, fold in sorted(found.items())
    ]


def _shortfalls(classes: Mapping[str, _Class], shares: Shares, members: Mapping[str, int]) -> Iterator[str]:
    """Sentences, the missed minimums first. A share is missed if it is off by more than whole images can help."""
    late = []
    for label, found in sorted(classes.items()):
        for split, share in ((TEST, shares.test), (VAL, shares.val)):
            got, wanted = found.images[split], share * found.used
            if got < shares.min_per_class:
                missed = f"{got} of {shares.min_per_class} wanted {split} images"
                yield f"class {label!r}: {missed}: {_why(found, split, max(wanted, shares.min_per_class), members)}"
            elif abs(got - max(wanted, shares.min_per_class)) >= 1:
                off = f"{got} {split} {'image' if got == 1 else 'images'} where {share:.0%} are {wanted:.1f}"
                late.append(f"class {label!r}: {off}: {_why(found, split, max(wanted, shares.min_per_class), members)}")
    yield from late


def _why(found: _Class, split: str, wanted: float, members: Mapping[str, int]) -> str:
    """The reason that weighs most. Groups that hold nothing new cannot be moved."""
    count = wording.count
    got, largest = found.images[split], max(found.groups.values(), default=0)
    whole = f"its {count(found.used, 'image')} " + ("is" if found.used == 1 else "are")
    if not found.used:
        return f"all its {count(found.images[QUARANTINE], 'image')} are in quarantine"
    if len(found.groups) <= splits.MIN_TRAINING_GROUPS:
        return f"{whole} {count(len(found.groups), 'group')}"
    if len(found.groups) == splits.MIN_TRAINING_GROUPS + 1 and got < wanted:
        return f"{whole} {len(found.groups)} groups, and training keeps {splits.MIN_TRAINING_GROUPS}"
    if not found.free:
        return f"{whole} placed by earlier runs, which stands"
    if got < wanted and found.images[TRAIN] <= found.used // 2:
        return f"{whole} few, and training keeps half"
    if largest > max(wanted, 1):
        return f"its largest group has {largest} of its {found.used} images"
    if len(found.free) < len(found.groups):
        return f"{whole} mostly placed by earlier runs, which stands"
    mixed = any(members[name] > size for name, size in found.groups.items())
    nature = "some of them with images of other classes" if mixed else f"of up to {count(largest, 'image')}"
    return f"{whole} {count(len(found.groups), 'group')}, {nature}"
