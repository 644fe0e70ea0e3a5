from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pages.axis import compact, linear_ticks, log_ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.13, 0.86, [0.2, 0.4, 0.6, 0.8]),
        (0.0, 0.113, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (7.0, 7.4, [7.0, 7.1, 7.2, 7.3, 7.4]),
        (-3.0, 4.0, [-2, 0, 2, 4]),
    ],
    ids=str,
)
def test_linear(low: float, high: float, ticks: list[float]) -> None:
    assert linear_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (90.0, 1100.0, [100, 200, 500, 1000]),
        (0.0005, 0.12, [0.001, 0.003, 0.01, 0.03, 0.1]),
        (1e-9, 1.0, [1e-9, 1e-7, 1e-5, 1e-3, 1e-1]),
        (101.0, 107.0, [102, 104, 106]),
    ],
    ids=str,
)
def test_log(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(1e-6, 1e6), st.floats(1.02, 1e6))
def test_ticks_are_few_ascending_and_on_the_axis(low: float, factor: float) -> None:
    high = low * factor
    for ticks in (linear_ticks(low, high), log_ticks(low, high)):
        assert 2 <= len(ticks) <= 6
        assert all(one < two for one, two in itertools.pairwise(ticks))
        assert ticks[0] >= low * (1 - 1e-9)
        assert ticks[-1] <= high * (1 + 1e-9)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.00304, "0.00304"), (265.5, "266"), (3024.0, "3024"), (12345.0, "12.3k"), (2.5e6, "2.5M")],
)
def test_compact(value: float, text: str) -> None:
    assert compact(value) == text
