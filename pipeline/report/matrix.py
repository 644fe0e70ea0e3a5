"""The confusion matrix as shaded cells, and the pairs that are confused most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LARGEST = 100  # classes; more cannot be read, the list of pairs can
WITH_NUMBERS = 20  # classes up to which the cells are large enough for numbers
SHADES = 8
PAIRS = 10


@dataclass(frozen=True)
class Cell:
    count: int
    shade: str  # CSS class: h1 … h8 on the diagonal, m1 … m8 beside it, by the share of the row; empty for 0
    anchor: str | None = None  # of the examples on the page


@dataclass(frozen=True)
class Row:
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Pair:
    actual: str
    predicted: str
    count: int
    share: float  # 0-1, of the images of `actual`
    anchor: str | None


@dataclass(frozen=True)
class Matrix:
    classes: tuple[str, ...]
    rows: tuple[Row, ...]  # empty for more than `LARGEST` classes
    numbers: bool
    pairs: tuple[Pair, ...]


def build(
    classes: Sequence[str], predictions: Iterable[Mapping[str, Any]], anchors: Mapping[tuple[str, str], str]
) -> Matrix:
    """Of the test images. `predictions` need `label` and `predicted`; `anchors` lead to examples of a pair."""
    counts = Counter((row["label"], row["predicted"]) for row in predictions)
    totals: Counter[str] = Counter()
    for (actual, _), count in counts.items():
        totals[actual] += count
    wrong = sorted(
        ((pair, count) for pair, count in counts.items() if pair[0] != pair[1]), key=lambda it: (-it[1], it[0])
    )
    rows = [
        Row(actual, tuple(_cell((actual, predicted), counts, totals[actual], anchors) for predicted in classes))
        for actual in classes
    ]
    return Matrix(
        tuple(classes),
        tuple(rows) if len(classes) <= LARGEST else (),
        len(classes) <= WITH_NUMBERS,
        tuple(Pair(*pair, count, count / totals[pair[0]], anchors.get(pair)) for pair, count in wrong[:PAIRS]),
    )


def _cell(
    pair: tuple[str, str], counts: Mapping[tuple[str, str], int], total: int, anchors: Mapping[tuple[str, str], str]
) -> Cell:
    count = counts.get(pair, 0)
    if not count:
        return Cell(0, "")
    actual, predicted = pair
    return Cell(count, f"{'h' if actual == predicted else 'm'}{-(-count * SHADES // total)}", anchors.get(pair))
