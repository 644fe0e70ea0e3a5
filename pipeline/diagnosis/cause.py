"""What a diagnosis is made of, and how a measured number becomes a score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.diagnosis.facts import Facts


@dataclass(frozen=True)
class Cause:
    """One reason why the model is not better."""

    cause: str
    score: float  # 0-1: how sure and how much it matters; the formula stands beside each cause
    evidence: tuple[str, ...]  # sentences with numbers
    advice: str
    change: Mapping[str, Any]  # params key to the value to try; empty if no param helps


def ramp(value: float, nothing: float, certain: float) -> float:
    """0 at `nothing` and on its far side, 1 at `certain` and beyond, linear between. Falls if `certain` < `nothing`."""
    return min(1.0, max(0.0, (value - nothing) / (certain - nothing)))


def need(facts: Facts) -> float:
    """How much there is to explain: 0 at a balanced accuracy of 0.98, 1 at 0.80.

    What the data are like (few, unbalanced, small) harms a model only as far as it falls short, so such causes
    are weighed by this.
    """
    return ramp(1 - facts.balanced_accuracy, 0.02, 0.2)
