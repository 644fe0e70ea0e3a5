from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pipeline.training import schedules
from pipeline.training.recipes import Phase
from pipeline.training.schedules import Schedule


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(10, 0, falls=False), {0: 1, 5: 1, 9: 1, 20: 1}),
        (Schedule(10, 0, falls=True), {0: 1, 5: 0.5, 10: 0, 11: 0}),
        (Schedule(14, 4, falls=True), {0: 0.01, 1: 0.2575, 2: 0.505, 4: 1, 9: 0.5, 14: 0}),
        (Schedule(14, 4, falls=False), {0: 0.01, 2: 0.505, 4: 1, 13: 1}),
    ],
    ids=["constant", "cosine", "warm-up and cosine", "warm-up"],
)
def test_the_share_of_the_highest_rate(schedule: Schedule, expected: dict[int, float]) -> None:
    assert {step: float(schedule(step)) for step in expected} == pytest.approx(expected, abs=1e-6)


def test_a_phase_has_its_schedule() -> None:
    phase = Phase("p", epochs=20, schedule="cosine", warmup=0.1)

    assert schedules.of(phase, 7) == Schedule(140, 14, falls=True)
    assert schedules.of(replace(phase, warmup=0.001), 7) == Schedule(140, 1, falls=True)
    assert schedules.of(replace(phase, schedule="plateau", warmup=0.0), 7) == Schedule(140, 0, falls=False)


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([], 6, 0),
        ([3, 2, 1, 0], 6, 0),
        ([1, 2, 2], 6, 0),
        ([1, 2, 2, 2], 6, 1),
        ([1, 2, 2, 2, 2, 2], 6, 1),
        ([1, 2, 2, 2, 2, 2, 2], 6, 2),
        ([1, 2, 2, 0.5, 2, 2], 6, 0),
        ([1, 1], 1, 1),
        ([1, 1, 1], 1, 2),
        ([math.pi], 1, 0),
    ],
)
def test_a_plateau_cuts_the_rate(losses: list[float], patience: int, expected: int) -> None:
    assert schedules.cuts(losses, patience) == expected
