"""What is known of one version of a file once it has been read, and for how long that holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.ingestion import reasons


@dataclass(frozen=True)
class Limits:
    max_bytes: int
    max_pixels: int
    min_side: int

    @property
    def of_size(self) -> dict[str, int]:
        """Those that take reading the file to judge by."""
        return {"max_pixels": self.max_pixels, "min_side": self.min_side}


@dataclass(frozen=True)
class Checked:
    """An image id and what is unusual about the file, or the reason why it cannot be used."""

    image_id: str | None
    notes: tuple[str, ...] = ()
    reason: str | None = None
    detail: str | None = None


def recalled(row: Mapping[str, Any], judged_by: Mapping[str, int], limits: Limits) -> Checked | None:
    """The answer on record, None if the file must be read again: its verdict was another limit's, or passing.

    `judged_by`: the `Limits.of_size` of the time.
    """
    if row["image_id"] is not None:
        return Checked(row["image_id"], tuple(row["notes"] or ()))
    if row["reason"] in reasons.OF_BYTES or (row["reason"] in reasons.OF_LIMITS and judged_by == limits.of_size):
        return Checked(None, reason=row["reason"], detail=row["detail"])
    return None
