"""A few test images that the model got wrong, the most confident first, as small pictures inside the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.pages.thumbnails import thumbnail

SHOWN = 24
PER_PAIR = 3  # of one pair of classes, so that one confusion does not fill the page


@dataclass(frozen=True)
class Mistake:
    uri: str
    label: str
    predicted: str
    confidence: float  # 0-1
    live_predicted: str | None
    picture: str  # data: URI


def choose(predictions: Sequence[Mapping[str, Any]], path: Callable[[str], Path], max_pixels: int) -> list[Mistake]:
    """At most `SHOWN`. Images that are gone or cannot be drawn are skipped. `path`: image id to its file."""
    wrong = sorted(
        (row for row in predictions if row["label"] != row["predicted"]),
        key=lambda row: (-row["confidence"], row["image_id"]),
    )
    of_pair: Counter[tuple[str, str]] = Counter()
    chosen: list[Mistake] = []
    for row in wrong:
        pair = (row["label"], row["predicted"])
        if len(chosen) == SHOWN or of_pair[pair] == PER_PAIR:
            continue
        picture = thumbnail(path(row["image_id"]), max_pixels)
        if picture is not None:
            of_pair[pair] += 1
            chosen.append(Mistake(row["uri"], *pair, row["confidence"], row["live_predicted"], picture))
    return chosen
