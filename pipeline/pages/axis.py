"""Where an axis is labelled, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Tick:
    at: float  # in the drawing's own units
    text: str


def linear_ticks(low: float, high: float) -> list[float]:
    """Two to six round values within low … high, low < high: multiples of 1, 2 or 5 times a power of ten."""
    power = math.floor(math.log10(high - low)) - 1
    for step in (base * 10.0 ** (power + shift) for shift in (0, 1) for base in (1, 2, 5)):
        ticks = range(math.ceil(low / step), math.floor(high / step) + 1)
        if len(ticks) <= 6:
            break
    return [float(f"{number * step:.10g}") for number in ticks]


def log_ticks(low: float, high: float) -> list[float]:
    """Two to six values within low … high, 0 < low < high: 1, 2, 5 or 1, 3 of each decade, or decades; else linear."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for bases in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{base}e{power}") for power in decades for base in bases if low <= base * 10.0**power <= high]
        if len(ticks) <= 6:
            break
    ticks = ticks[:: math.ceil(len(ticks) / 6)] if len(ticks) > 6 else ticks
    return ticks if len(ticks) > 1 else linear_ticks(low, high)


def compact(value: float) -> str:
    """Three significant digits, or four of a whole number; `12.3k` for 12345."""
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
