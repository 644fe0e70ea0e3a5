"""The images of one part, out of the shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.dataset import records
from pipeline.dataset.records import ALONE, Worker
from pipeline.dataset.shard_index import Index
from pipeline.training.roles import Roles
from pipeline.training.views import Alteration


@dataclass(frozen=True)
class PartImages:
    """`encoding`: how the shards' pixels were made from the images, in words; part of what frozen features go by."""

    shards: Path
    index: Index
    roles: Roles
    size: int
    encoding: str

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Images of `train` and `val` by label."""
        parts = {"train": self.roles.train, "val": self.roles.val}
        return {
            split: {label: list(keep.values()).count(number) for number, label in enumerate(self.index.classes)}
            for split, keep in parts.items()
        }

    def of_view(self, view: int, keep: Mapping[str, int], alteration: Alteration, split: str) -> tf.data.Dataset:
        """One pass over images of a split."""
        return records.dataset(
            self.shards,
            self.index,
            keep,
            size=self.size,
            splits=(split,),
            copies=True,
            view=view,
            policy=alteration.policy,
            seed=alteration.seed,
        )

    def endless(
        self, alteration: Alteration, *, batch_size: int, balanced: bool, first_epoch: int, worker: Worker = ALONE
    ) -> tf.data.Dataset:
        """Batches of training images, with their copies."""
        return records.batches(
            self.shards,
            self.index,
            self.roles.train,
            size=self.size,
            batch_size=batch_size,
            policy=alteration.policy,
            seed=alteration.seed,
            balanced=balanced,
            worker=worker,
            first_epoch=first_epoch,
        )

    def first(self, count: int) -> NDArray[np.uint8]:
        """At most `count` training images, uint8 [n, S, S, 3]."""
        found = records.dataset(self.shards, self.index, self.roles.train, size=self.size, splits=("train",))
        return np.stack([image["image"] for image in found.take(count).as_numpy_iterator()])
