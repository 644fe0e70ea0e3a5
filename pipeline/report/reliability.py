"""The reliability diagram as coordinates for inline SVG; the template draws it.

DeGroot & Fienberg, The Comparison and Evaluation of Forecasters, 1983: accuracy of the answers in each bin of
confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.pages.axis import Tick

WIDTH, HEIGHT = 400, 340  # in the SVG's own units
LEFT, RIGHT, TOP, BOTTOM = 42, WIDTH - 16, 26, HEIGHT - 40
SMALLEST, LARGEST = 2.5, 11.0  # radius of a dot
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Point:
    """A bin. `ideal`: where y would lie if its accuracy were its confidence."""

    x: float
    y: float
    ideal: float
    radius: float
    text: str


@dataclass(frozen=True)
class Diagram:
    points: tuple[Point, ...]
    horizontal: tuple[Tick, ...]
    vertical: tuple[Tick, ...]
    description: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def diagram(bins: Sequence[Mapping[str, Any]]) -> Diagram | None:
    """`bins`: `calibration.bins` of metrics/evaluate.json. None without an image."""
    filled = [found for found in bins if found["images"]]
    if not filled:
        return None
    most = max(found["images"] for found in filled)
    points = tuple(
        Point(
            x=_x(found["confidence"]),
            y=_y(found["accuracy"]),
            ideal=_y(found["confidence"]),
            radius=round(max(SMALLEST, LARGEST * math.sqrt(found["images"] / most)), 1),
            text=f"{found['images']} images, confidence {found['confidence']:.2f}, accuracy {found['accuracy']:.2f}",
        )
        for found in filled
    )
    return Diagram(
        points,
        tuple(Tick(_y(value), f"{value:g}") for value in TICKS),
        tuple(Tick(_x(value), f"{value:g}") for value in TICKS),
        "Accuracy by confidence: " + "; ".join(point.text for point in points),
    )


def _x(share: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * share, 1)


def _y(share: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * share, 1)
