from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pages import histograms
from pipeline.pages.histograms import Quantiles, Sample, panel

FLOOR = histograms.HEIGHT - histograms.BOTTOM


def points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in text.split())]


def test_a_sample_counts_what_lies_beyond_to_the_ends() -> None:
    shares = Sample(np.array([-5.0, 0.5, 0.6, 1.5, 99.0])).histogram(np.array([0.0, 1.0, 2.0]))

    assert shares.tolist() == [0.6, 0.4]


def test_quantiles_are_even_between_two_of_them() -> None:
    # A quarter lies in 0-1, half in 1-3, a quarter in 3-4.
    shares = Quantiles([0, 1, 3, 4], [0, 0.25, 0.75, 1]).histogram(np.array([0.0, 1.0, 2.0, 3.5]))

    assert shares.tolist() == pytest.approx([0.25, 0.25, 0.5])


def test_a_value_that_many_images_share_is_one_step() -> None:
    shares = Quantiles([1, 2, 2, 2, 5], [0, 0.1, 0.5, 0.9, 1]).histogram(np.array([1.0, 1.9, 2.1, 5.0]))

    assert shares.sum() == pytest.approx(1)
    assert shares[1] > 0.8


def test_the_outline_walks_over_the_bins_and_back_to_the_axis() -> None:
    drawn = panel("Width", {"ours": Sample(np.repeat([1.0, 2.0], [30, 10]))})
    (outline,) = drawn.outlines
    walk = points(outline.points)

    assert len(walk) == 2 * histograms.BINS + 2
    assert walk[0] == (histograms.LEFT, FLOOR)
    assert walk[-1] == (histograms.WIDTH - histograms.RIGHT, FLOOR)
    heights = [FLOOR - y for _, y in walk]
    assert heights[1] == pytest.approx(3 * heights[-2], abs=0.5)  # 75 % in the first bin, 25 % in the last
    assert set(heights[3:-3]) == {0}


def test_one_is_not_drawn_above_the_edge_because_another_is_flat() -> None:
    drawn = panel(
        "Width", {"ours": Sample(np.linspace(1, 2, 400)), "imagenet": Quantiles([1, 1.5, 1.5, 2], [0, 0.01, 0.99, 1])}
    )

    assert min(y for outline in drawn.outlines for _, y in points(outline.points)) == histograms.TOP


@given(
    st.lists(st.floats(0, 1e5), min_size=1, max_size=50),
    st.sampled_from(["linear", "log"]),
)
def test_whatever_the_values_all_of_it_lies_inside(values: list[float], scale: str) -> None:
    sample = Sample(np.array(values))
    drawn = panel("Any", {"ours": sample, "live": Sample(np.array([1.0]))}, scale="log" if scale == "log" else "linear")

    for outline in drawn.outlines:
        for x, y in points(outline.points):
            assert histograms.LEFT <= x <= histograms.WIDTH - histograms.RIGHT
            assert histograms.TOP <= y <= FLOOR
    assert all(histograms.LEFT <= tick.at <= histograms.WIDTH - histograms.RIGHT for tick in drawn.vertical)
    assert len(drawn.vertical) >= 2
