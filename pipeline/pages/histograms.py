"""Distributions of one quantity, drawn over each other, as coordinates for inline SVG; `panel.svg.j2` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.pages.axis import Tick, compact, linear_ticks, log_ticks

WIDTH, HEIGHT = 360, 190  # of a panel, in the SVG's own units
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 26, 24  # margins, for the axes' labels
BINS = 40
EDGES = (0.005, 0.995)  # quantiles that the axis reaches to; what lies beyond counts to the first and last bin

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quantiles:
    """A distribution of which only quantiles are known: `values` [Q], ascending, at `shares` [Q], 0-1."""

    values: Sequence[float]
    shares: Sequence[float]

    def at(self, share: float) -> float:
        return float(np.interp(share, self.shares, self.values))

    def histogram(self, edges: Values) -> Values:
        """Share of each bin, 0-1; between two quantiles the distribution is taken for even."""
        values = np.asarray(self.values, np.float64)
        # Values that repeat would leave open which share is meant: a step needs some width.
        values = values + np.arange(values.size) * (np.ptp(values) + 1e-12) * 1e-9
        below = np.interp(edges, values, self.shares, left=0.0, right=1.0)
        below[0], below[-1] = 0.0, 1.0
        return np.diff(below)


@dataclass(frozen=True)
class Sample:
    """A distribution of which all `values` [N], N >= 1, are known."""

    values: Values

    def at(self, share: float) -> float:
        return float(np.quantile(self.values, share))

    def histogram(self, edges: Values) -> Values:
        counts, _ = np.histogram(np.clip(self.values, edges[0], edges[-1]), edges)
        return counts / self.values.size


@dataclass(frozen=True)
class Outline:
    name: str
    points: str  # of an SVG polyline, from the axis to the axis, so that it can be filled


@dataclass(frozen=True)
class Panel:
    title: str
    outlines: tuple[Outline, ...]
    horizontal: tuple[Tick, ...]  # on the axis of shares, by y
    vertical: tuple[Tick, ...]  # on the axis of the quantity, by x


def panel(
    title: str, distributions: Mapping[str, Sample | Quantiles], *, scale: Literal["linear", "log"] = "linear"
) -> Panel:
    """The first of `distributions` sets the height, and taller ones are cut off by the panel's edge."""
    low = min(one.at(EDGES[0]) for one in distributions.values())
    high = max(one.at(EDGES[1]) for one in distributions.values())
    if scale == "log":
        # Zero has no place on such an axis; what is below a thousandth of the median counts to the first bin.
        low = max(low, min(one.at(0.5) for one in distributions.values()) / 1000, 1e-9)
        high = max(high, low)
        low, high = (low / 1.2, high * 1.2) if high < 1.05 * low else (low, high)
        edges = np.geomspace(low, high, BINS + 1)
        marks = log_ticks(low, high)
    else:
        if high - low < 1e-6 * max(abs(high), 1):
            low, high = low - 0.05 * max(abs(low), 1), high + 0.05 * max(abs(high), 1)
        edges = np.linspace(low, high, BINS + 1)
        marks = linear_ticks(low, high)
    shares = {name: one.histogram(edges) for name, one in distributions.items()}
    top = max(1.1 * float(next(iter(shares.values())).max()), *(min(float(s.max()), 0.15) for s in shares.values()))

    def x(value: float) -> float:
        part = math.log(value / low) / math.log(high / low) if scale == "log" else (value - low) / (high - low)
        return round(LEFT + (WIDTH - LEFT - RIGHT) * part, 1)

    def y(share: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(share / top, 1.0), 1)

    return Panel(
        title=title,
        outlines=tuple(Outline(name, _outline([x(edge) for edge in edges], map(y, of))) for name, of in shares.items()),
        horizontal=tuple(
            Tick(y(step), f"{step:.3g}" if top < 0.02 else f"{step:.0%}") for step in linear_ticks(0, top)
        ),
        vertical=tuple(Tick(x(mark), compact(mark)) for mark in marks),
    )


def _outline(edges: Sequence[float], heights: Iterable[float]) -> str:
    """Steps: along the top of each bin, down to the axis at both ends."""
    floor = HEIGHT - BOTTOM
    points = [f"{edges[0]},{floor}"]
    for left, right, height in zip(edges, edges[1:], heights, strict=False):
        points += [f"{left},{height}", f"{right},{height}"]
    return " ".join([*points, f"{edges[-1]},{floor}"])
