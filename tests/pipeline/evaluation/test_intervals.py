from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation import calibration, intervals, metrics
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


def test_equal_models_have_a_worse_class_in_five_percent_of_comparisons_at_most() -> None:
    """A hundred classes of 3 to 20 images, as hard as it gets: each answer is right by the toss of a coin."""
    generator = np.random.default_rng(11)
    together = HOW.together(100)
    worse = alone = 0
    for _ in range(100):
        pairs = [generator.random((generator.integers(3, 21), 2)) < 0.5 for _ in range(100)]
        worse += any(intervals.difference(pair, np.arange(len(pair)), together).high < 0 for pair in pairs)
        alone += any(intervals.difference(pair, np.arange(len(pair)), 0.95).high < 0 for pair in pairs)
    assert worse <= 5
    assert alone > 60  # what the correction is for


def test_a_class_that_is_lost_is_found_among_a_hundred() -> None:
    pair = np.stack([np.arange(20) < 4, np.ones(20, bool)], axis=1)
    assert intervals.difference(pair, np.arange(20), HOW.together(100)).high < 0


def test_a_group_of_copies_says_as_much_as_one_image() -> None:
    pair = np.array([[False, True], [False, True], [True, True], [True, False]])
    of_copies = intervals.difference(np.repeat(pair, 10, axis=0), np.repeat(np.arange(4), 10), 0.95)
    of_images = intervals.difference(pair, np.arange(4), 0.95)
    assert of_copies.low == pytest.approx(of_images.low, abs=1e-6)
    assert of_copies.high == pytest.approx(of_images.high, abs=1e-6)


def test_more_confidence_is_wider() -> None:
    pair = np.stack([np.arange(30) % 3 > 0, np.arange(30) % 4 > 0], axis=1)
    widths = []
    for count in (1, 10, 1000):
        found = intervals.difference(pair, np.arange(30), HOW.together(count))
        widths.append(found.high - found.low)
    assert widths == sorted(widths)
    assert widths[2] > 1.5 * widths[0]


def test_macro_f1_is_covered_about_as_often_as_promised() -> None:
    """Ten classes of six images; a wrong answer names any other class alike, so recall, precision and F1 are 0.8."""
    generator = np.random.default_rng(2)
    labels, groups = np.repeat(np.arange(10), 6), np.arange(60)
    covered = 0
    for _ in range(100):
        wrong = (labels + generator.integers(1, 10, 60)) % 10
        predicted = np.where(generator.random(60) < 0.8, labels, wrong)
        estimate = metrics.macro_f1(metrics.confusion(labels, predicted, 10))
        how = Resampling(200, 0.95, 1)
        found = intervals.macro_f1(labels, predicted, groups, classes=10, estimate=estimate, how=how)
        covered += found.low <= 0.8 <= found.high
    assert 88 <= covered <= 100


def answered(images: int, sharpness: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the probabilities of five classes, and these raised to the power `sharpness`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2, size=(images, 5))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    raised = np.exp(sharpness * logits)
    return labels, raised / raised.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("sharpness", [1.0, 2.0], ids=["calibrated", "overconfident"])
def test_log_loss_and_calibration_error_are_covered_about_as_often_as_promised(sharpness: float) -> None:
    labels, probabilities = answered(200000, sharpness, 0)
    error, loss = metrics.calibration_error(labels, probabilities), metrics.log_loss(labels, probabilities)
    groups, how = np.arange(150), Resampling(200, 0.95, 1)
    covered = {"error": 0, "loss": 0}
    for seed in range(1, 101):
        labels, probabilities = answered(150, sharpness, seed)
        noise = calibration.noise(probabilities, groups, resamples=100, seed=1)
        of_error = intervals.calibration_error(labels, probabilities, groups, noise, how)
        of_loss = intervals.log_loss(metrics.log_losses(labels, probabilities), groups, how)
        covered["error"] += of_error.low <= error <= of_error.high
        covered["loss"] += of_loss.low <= loss <= of_loss.high
    assert covered["error"] >= 85
    assert covered["loss"] >= 85


def test_one_group_tells_no_spread() -> None:
    labels, probabilities = answered(5, 1.0, 0)
    one = np.zeros(5, np.int64)
    assert math.isnan(intervals.log_loss(metrics.log_losses(labels, probabilities), one, HOW).low)
    assert math.isnan(intervals.calibration_error(labels, probabilities, one, 0.1, HOW).low)
