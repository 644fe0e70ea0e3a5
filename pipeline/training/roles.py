"""Which images a part learns from, and which ones end its training."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.settings import FINAL


@dataclass(frozen=True, order=True)
class Item:
    """A stored image: one of the data set (`copy` 0) or an augmented copy of one. `number`: of its class."""

    image_id: str
    copy: int
    number: int


@dataclass(frozen=True)
class Roles:
    """Image id to class: what is learned from, and what early stopping goes by.

    `copies`: how many augmented copies the shards hold of images of `train`.
    """

    train: dict[str, int]
    val: dict[str, int]
    copies: dict[str, int]

    @property
    def learned(self) -> list[Item]:
        """What is learned from, with the copies, in the order of ids."""
        return sorted(
            Item(name, copy, number) for name, number in self.train.items() for copy in range(self.copies[name] + 1)
        )

    @property
    def has_copies(self) -> bool:
        return any(self.copies.values())

    @property
    def checked(self) -> list[Item]:
        return sorted(Item(name, 0, number) for name, number in self.val.items())


def roles(assignment: pa.Table, part: str, classes: int) -> Roles:
    """Splits `train` and `val`, less the fold that the part is measured on. Never test or quarantine.

    Raises `DataError` when a class has no training image or no image is left to stop by.
    """
    fold = None if part == FINAL else int(part.removeprefix("fold-"))
    chosen: dict[str, dict[str, int]] = {"train": {}, "val": {}}
    copies = {}
    for row in assignment.select(["image_id", "class", "split", "fold", "copies"]).to_pylist():
        if row["split"] in chosen and row["fold"] != fold:
            chosen[row["split"]][row["image_id"]] = row["class"]
            if row["split"] == "train":
                copies[row["image_id"]] = row["copies"]
    if missing := sorted(set(range(classes)) - set(chosen["train"].values())):
        raise DataError(
            f"{part}: expected training images of every class, found none of class number {missing[0]}.",
            fix="add images of it, or lower shard.val_share and shard.test_share",
        )
    if not chosen["val"]:
        raise DataError(f"{part}: expected validation images, found none.", fix="raise shard.val_share or add images")
    return Roles(chosen["train"], chosen["val"], copies)
