from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation import intervals
from pipeline.evaluation.intervals import Resampling

HOW = Resampling(resamples=400, confidence=0.95, seed=3)


@pytest.mark.parametrize(("right", "images"), [(20, 20), (17, 20), (0, 8), (90, 100)])
def test_accuracy_of_single_images_is_the_jeffreys_interval(right: int, images: int) -> None:
    correct = np.arange(images) < right
    found = intervals.share(correct, np.arange(images), 0.95)
    expected = stats.beta(right + 0.5, images - right + 0.5).ppf([0.025, 0.975])
    assert found.low == pytest.approx(0 if right == 0 else expected[0], abs=1e-6)
    assert found.high == pytest.approx(1 if right == images else expected[1], abs=1e-6)


def test_copies_of_one_picture_count_as_one() -> None:
    correct = np.repeat(np.arange(20) < 15, 10)
    groups = np.repeat(np.arange(20), 10)
    of_groups = intervals.share(correct, groups, 0.95)
    of_images = intervals.share(correct, np.arange(200), 0.95)
    assert (of_groups.high - of_groups.low) > 2 * (of_images.high - of_images.low)


@pytest.mark.parametrize(
    ("classes", "per_class", "recall"),
    [(2, 20, 0.9), (10, 3, 0.9), (30, 5, 0.85), (100, 3, 0.9)],
    ids=["two", "ten-tiny", "thirty-small", "hundred-tiny"],
)
def test_balanced_accuracy_is_covered_about_as_often_as_promised(classes: int, per_class: int, recall: float) -> None:
    generator = np.random.default_rng(classes)
    labels = np.repeat(np.arange(classes), per_class)
    groups = np.arange(len(labels))
    covered = 0
    for _ in range(100):
        correct = generator.random(len(labels)) < recall
        found = intervals.balanced_accuracy(
            correct, labels, groups, classes=classes, estimate=float(correct.mean()), how=Resampling(200, 0.95, 1)
        )
        covered += found.low <= recall <= found.high
    assert 88 <= covered <= 100


def test_a_class_without_images_does_not_count() -> None:
    correct, labels, groups = np.array([True, False] * 20), np.array([0, 2] * 20), np.arange(40)
    found = intervals.balanced_accuracy(correct, labels, groups, classes=4, estimate=0.5, how=HOW)
    assert 0.4 < found.low <= 0.5 <= found.high < 0.6


def test_one_image_settles_nothing() -> None:
    found = intervals.difference(np.array([[False, True]]), np.array([0]), 0.95)
    assert found.low == -1
    assert found.high > 0.2


def test_no_image_has_no_interval() -> None:
    none = np.empty(0, np.int64)
    assert math.isnan(intervals.share(np.empty(0, bool), none, 0.95).low)
    found = intervals.balanced_accuracy(np.empty(0, bool), none, none, classes=2, estimate=math.nan, how=HOW)
    assert math.isnan(found.high)


def test_the_seed_decides() -> None:
    correct, groups = np.arange(50) % 7 > 0, np.arange(50)

    def found(seed: int) -> intervals.Interval:
        how = Resampling(400, 0.95, seed)
        return intervals.balanced_accuracy(correct, groups % 2, groups, classes=2, estimate=6 / 7, how=how)

    assert found(3) == found(3)
    assert found(3) != found(4)
