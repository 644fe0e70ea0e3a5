"""Test images that the model got wrong, by pair of classes, as small pictures inside the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.pages.thumbnails import Album

SHOWN = 60
PER_PAIR = 4
BUDGET = 400_000  # bytes of all pictures


@dataclass(frozen=True)
class Mistake:
    uri: str
    confidence: float  # 0-1
    live_predicted: str | None
    picture: str  # data: URI


@dataclass(frozen=True)
class Group:
    """Images of `label` taken for `predicted`: `count` in all, the most confident of them as pictures."""

    anchor: str
    label: str
    predicted: str
    count: int
    mistakes: tuple[Mistake, ...]


def choose(predictions: Sequence[Mapping[str, Any]], album: Album) -> list[Group]:
    """The most frequent pairs first. Images that are gone or cannot be drawn are skipped.

    Every pair gets one picture before any gets another, so that one confusion does not fill the page.
    """
    of_pair: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(predictions, key=lambda row: (-row["confidence"], row["image_id"])):
        if row["label"] != row["predicted"]:
            of_pair[row["label"], row["predicted"]].append(row)
    pairs = sorted(of_pair, key=lambda pair: (-len(of_pair[pair]), pair))
    chosen: defaultdict[tuple[str, str], list[Mistake]] = defaultdict(list)
    shown = 0
    for rank in range(PER_PAIR):
        for pair in pairs:
            if rank < len(of_pair[pair]) and shown < SHOWN:
                row = of_pair[pair][rank]
                picture = album.picture(row["image_id"])
                if picture is not None:
                    chosen[pair].append(Mistake(row["uri"], row["confidence"], row["live_predicted"], picture))
                    shown += 1
    drawn = [pair for pair in pairs if chosen[pair]]
    # Numbered, since a class may have any name.
    return [
        Group(f"mistakes-{number}", *pair, len(of_pair[pair]), tuple(chosen[pair]))
        for number, pair in enumerate(drawn, start=1)
    ]
