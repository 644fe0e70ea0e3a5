from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.evaluation import ratios

TAILS = [1e-7, 2.5e-4, 0.025, 0.5, 0.975, 1 - 2.5e-4]


def share(right: int, images: int) -> ratios.Ratio:
    """Of right answers, with Jeffreys' pseudo-images."""
    return ratios.merged(np.array([1.0, 0, 1, 0]), np.ones(4), np.array([right, images - right, 0.5, 0.5]))


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(("right", "images"), [(20, 20), (17, 20), (1, 2), (90, 100), (49990, 50000)])
def test_a_share_of_single_images_is_a_beta_variable_far_into_its_tails(right: int, images: int, tail: float) -> None:
    beta = stats.beta(right + 0.5, images - right + 0.5)

    assert ratios.quantile(share(right, images), tail) == pytest.approx(beta.ppf(tail), abs=2e-7)
    assert ratios.probability(share(right, images), beta.ppf(tail)) == pytest.approx(tail, rel=1e-4)


@settings(max_examples=25, derandomize=True)  # draws: one in 20000 is beyond the bound
@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(2, 12), threshold=st.floats(-0.9, 0.9))
def test_differences_of_groups_of_all_sizes_are_as_often_as_drawn(seed: int, groups: int, threshold: float) -> None:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 9, groups).astype(np.float64)
    values = np.round(sizes * generator.uniform(-1, 1, groups))
    shapes = generator.uniform(0.4, 1.5, groups)
    draws = generator.standard_gamma(shapes, (40000, groups))

    expected = np.mean(draws @ values / (draws @ sizes) <= threshold)

    assert ratios.probability(ratios.merged(values, sizes, shapes), threshold) == pytest.approx(expected, abs=0.012)


def test_beyond_all_values_nothing_is_left() -> None:
    ratio = ratios.merged(np.array([0.0, 1, 2]), np.array([1.0, 2, 2]), np.ones(3))

    assert ratios.probability(ratio, 1.0) == 1
    assert ratios.probability(ratio, -1e-9) == 0


def test_groups_that_are_alike_are_one() -> None:
    ratio = ratios.merged(np.array([1.0, 0, 1, 2]), np.array([1.0, 1, 1, 2]), np.array([1, 1, 0.5, 1]))

    assert ratio == ratios.Ratio((0, 1, 2), (1, 1, 2), (1, 1.5, 1))
