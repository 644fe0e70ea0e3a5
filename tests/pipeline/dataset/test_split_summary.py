import pyarrow as pa

from pipeline.dataset import assignment, split_summary
from pipeline.dataset.splits import QUARANTINE, TEST, TRAIN, VAL, Shares

SHARES = Shares("salt", val=0.2, test=0.2, min_per_class=2)
PLAN = {TRAIN: [0, 0, 1, 1, 1], VAL: [0, 1], TEST: [-1, -1], QUARANTINE: [-1]}


def table(*classes: tuple[str, dict[str, list[int]], int]) -> pa.Table:
    """Of each class (label, split to folds, images per group)."""
    rows = []
    for label, plan, size in classes:
        for split, folds in plan.items():
            for number, fold in enumerate(folds):
                group = f"{label}-{split}-{number // size}"
                reason = "between two" if split == QUARANTINE else None
                rows.append({"label": label, "split": split, "fold": fold, "group": group, "reason": reason})
    for number, row in enumerate(rows):
        row |= {"image_id": f"{number:03d}"}
    return pa.Table.from_pylist(rows, assignment.SCHEMA)


def test_counts_shares_groups_and_folds() -> None:
    found = split_summary.summary(table(("a", PLAN, 1)), SHARES, ())
    assert found["images"] == {TRAIN: 5, VAL: 2, TEST: 2, QUARANTINE: 1}
    assert found["classes"][VAL] == {"a": 2}
    assert found["shares"][TEST] == {"wanted": 0.2, "got": 2 / 9}
    assert (found["groups"], found["groups_in"], found["largest_group"]) == (9, {TRAIN: 5, VAL: 2, TEST: 2}, 1)
    assert found["folds"] == [
        {"fold": 0, "images": {TRAIN: 2, VAL: 1}, "classes": {"a": 3}},
        {"fold": 1, "images": {TRAIN: 3, VAL: 1}, "classes": {"a": 4}},
    ]
    assert found["quarantined"] == {"between two": 1}
    assert found["shortfalls"] == []


def test_every_shortfall_says_why() -> None:
    few = ("few", {TRAIN: [0, 1], TEST: [-1]}, 1)
    big = ("big", {TRAIN: [0] * 3 + [1] * 3 + [2] * 3, TEST: [-1] * 12}, 12)
    lost = ("lost", {QUARANTINE: [-1] * 3}, 1)
    old = ("old", {TRAIN: [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2], VAL: [0, 1], TEST: [-1, -1]}, 1)
    content = table(few, big, lost, old)
    new = [
        row["image_id"] for row in content.select(["image_id", "label"]).to_pylist() if row["label"] in {"few", "big"}
    ]
    found = split_summary.summary(content, SHARES, new)["shortfalls"]
    assert found == [
        "class 'big': 0 of 2 wanted val images: its 21 images are 2 groups",
        "class 'few': 1 of 2 wanted test images: its 3 images are 3 groups, and training keeps 2",
        "class 'few': 0 of 2 wanted val images: its 3 images are 3 groups, and training keeps 2",
        "class 'lost': 0 of 2 wanted test images: all its 3 images are in quarantine",
        "class 'lost': 0 of 2 wanted val images: all its 3 images are in quarantine",
        "class 'big': 12 test images where 20% are 4.2: its 21 images are 2 groups",
        "class 'old': 2 test images where 20% are 3.2: its 16 images are placed by earlier runs, which stands",
        "class 'old': 2 val images where 20% are 3.2: its 16 images are placed by earlier runs, which stands",
    ]
