"""What a rule says: the figure that it looked at, the bar, and the reason in words.

A figure that is missing or not finite fails its rule: what could not be measured cannot speak for a model. A figure
that equals its bar passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# 0.98 - 0.99 is -0.010000000000000009: a figure at the bar must not fail for the way it was computed.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rule:
    rule: str
    passed: bool
    value: float | str | None
    threshold: float | str
    explanation: str
    borderline: bool = False  # the bar lies within the figure's interval: other held-out images could say otherwise


def figure(found: Mapping[str, Any] | None, *path: str) -> float | None:
    """The number at `path` in nested mappings; None if there is none, or it is not finite."""
    value: Any = found
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def at_least(
    rule: str, value: float | None, bar: float, sentence: str, *, low: float | None = None, high: float | None = None
) -> Rule:
    """`sentence` may name `{value}` and `{bar}`; `low` and `high` are the ends of the figure's interval."""
    return _judged(rule, value, bar, sentence, lambda number: number >= bar - _ROUNDING, low, high)


def at_most(
    rule: str, value: float | None, bar: float, sentence: str, *, low: float | None = None, high: float | None = None
) -> Rule:
    """As `at_least`."""
    return _judged(rule, value, bar, sentence, lambda number: number <= bar + _ROUNDING, low, high)


def no_figure(rule: str, bar: float | str, what: str | None = None) -> Rule:
    return Rule(rule, False, None, bar, f"There is no figure for the rule {rule!r}{f': {what}' if what else ''}.")


def _judged(
    rule: str,
    value: float | None,
    bar: float,
    sentence: str,
    passes: Callable[[float], bool],
    low: float | None,
    high: float | None,
) -> Rule:
    if value is None or not math.isfinite(value):
        return no_figure(rule, bar)
    near = low is not None and high is not None and low <= bar <= high
    return Rule(rule, passes(value), value, bar, sentence.format(value=value, bar=bar), near)
