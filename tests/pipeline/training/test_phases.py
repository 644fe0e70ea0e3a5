from __future__ import annotations

import numpy as np
import pytest

from pipeline.training import phases


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([0.1, 0.2, 0.3], True),  # mean 0.2, standard error 0.1 / sqrt(3) = 0.058
        ([0.1, -0.2, 0.3, 0.0], False),  # mean 0.05, standard error 0.208 / 2 = 0.104
        ([0.0, 0.0], False),
        ([-0.1, -0.2], False),
        ([0.5], True),
    ],
    ids=["clearly", "within chance", "equal", "worse", "a single image"],
)
def test_a_phase_is_better_if_losses_fall_by_more_than_a_standard_error(gains: list[float], expected: bool) -> None:
    before = np.linspace(1, 2, len(gains)).astype(np.float32)

    assert phases.better(before, before - np.array(gains, np.float32)) is expected
