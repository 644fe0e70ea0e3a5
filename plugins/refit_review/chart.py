"""A figure of all versions, with intervals, as points to draw. Coordinates are SVG user units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEIGHT, TOP, BOTTOM, LEFT, RIGHT = 220, 16, 34, 44, 16
STEP_MIN, STEP_MAX, WIDTH = 18, 90, 640


@dataclass(frozen=True)
class Point:
    version: int
    x: float
    y: float
    low: float | None  # y of the interval's ends
    high: float | None
    text: str
    live: bool


@dataclass(frozen=True)
class Chart:
    width: int
    points: tuple[Point, ...]
    ticks: tuple[tuple[float, str], ...]  # y and label
    line: str  # of an SVG polyline
    labels: tuple[int, ...]  # versions that have room for their number

    @property
    def base(self) -> int:
        return HEIGHT - BOTTOM


def draw(versions: Sequence[Mapping[str, Any]], name: str) -> Chart | None:
    """`versions` as `refit models list --json` gives them; None if no version has the figure."""
    known = [(row, row.get(name) or {}) for row in versions]
    known = [(row, found) for row, found in known if _finite(found.get("value"))]
    if not known:
        return None
    ends = [value for _, found in known for value in (found["value"], found.get("low"), found.get("high"))]
    finite = [value for value in ends if _finite(value)]
    bottom, top = math.floor(min(finite) * 10) / 10, math.ceil(max(finite) * 10) / 10
    if top - bottom < 0.1:
        bottom, top = max(0.0, bottom - 0.1), min(1.0, top + 0.1)

    def height(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (top - value) / (top - bottom), 1)

    step = min(STEP_MAX, max(STEP_MIN, (WIDTH - LEFT - RIGHT) / len(known)))
    points = tuple(
        Point(
            version=row["version"],
            x=round(LEFT + step * (place + 0.5), 1),
            y=height(found["value"]),
            low=height(found["low"]) if _finite(found.get("low")) else None,
            high=height(found["high"]) if _finite(found.get("high")) else None,
            text=words(found),
            live="live" in row.get("aliases", ()),
        )
        for place, (row, found) in enumerate(known)
    )
    count = round((top - bottom) * 10)
    every = 1 if count <= 5 else 2
    ticks = tuple((height(bottom + tick / 10), f"{bottom + tick / 10:.1f}") for tick in range(0, count + 1, every))
    line = " ".join(f"{point.x},{point.y}" for point in points)
    room = max(1, math.ceil(26 / step))
    labels = tuple(point.version for place, point in enumerate(points) if (len(points) - 1 - place) % room == 0)
    return Chart(int(LEFT + step * len(known) + RIGHT), points, ticks, line, labels)


def words(found: Mapping[str, Any] | None) -> str:
    """0.912 [0.880, 0.941]"""
    found = found or {}
    if not _finite(found.get("value")):
        return "unknown"
    if not (_finite(found.get("low")) and _finite(found.get("high"))):
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
