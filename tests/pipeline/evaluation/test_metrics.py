from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from pipeline.evaluation import metrics

# Three classes; class 2 has no image, class 1 is never predicted.
LABELS = np.array([0, 0, 0, 1, 1])
PREDICTED = np.array([0, 0, 2, 0, 2])


def test_confusion_has_actual_in_rows_and_predicted_in_columns() -> None:
    assert metrics.confusion(LABELS, PREDICTED, 3).tolist() == [[2, 0, 1], [1, 0, 1], [0, 0, 0]]


def test_per_class_is_nan_where_images_or_answers_are_missing() -> None:
    found = metrics.per_class(metrics.confusion(LABELS, PREDICTED, 3))
    np.testing.assert_allclose(found.precision, [2 / 3, np.nan, 0])
    np.testing.assert_allclose(found.recall, [2 / 3, 0, np.nan])
    np.testing.assert_allclose(found.f1, [2 / 3, 0, np.nan])
    assert found.support.tolist() == [3, 2, 0]


def test_averages_are_over_the_classes_that_have_images() -> None:
    matrix = metrics.confusion(LABELS, PREDICTED, 3)
    assert metrics.accuracy(LABELS, PREDICTED) == pytest.approx(2 / 5)
    assert metrics.balanced_accuracy(matrix) == pytest.approx((2 / 3 + 0) / 2)
    assert metrics.macro_f1(matrix) == pytest.approx((2 / 3 + 0) / 2)


def test_log_loss_by_hand() -> None:
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [0.1, 0.9]])
    expected = -(math.log(0.5) + math.log(0.25) + math.log(0.9)) / 3
    assert metrics.log_loss(np.array([0, 1, 1]), probabilities) == pytest.approx(expected)


def test_log_loss_of_a_certain_and_wrong_answer_is_finite() -> None:
    assert metrics.log_loss(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(23 * math.log(2))


def test_calibration_error_by_hand() -> None:
    # Bin (9/15, 10/15]: two answers at 0.65, one right, gap |0.5 - 0.65|. Bin (13/15, 14/15]: one at 0.9, right.
    probabilities = np.array([[0.65, 0.35], [0.65, 0.35], [0.1, 0.9]])
    expected = (2 * 0.15 + 1 * 0.1) / 3
    assert metrics.calibration_error(np.array([0, 1, 1]), probabilities) == pytest.approx(expected)


def test_calibration_error_of_exact_confidence_is_zero() -> None:
    probabilities = np.tile([0.75, 0.25], (4, 1))
    assert metrics.calibration_error(np.array([0, 0, 0, 1]), probabilities) == pytest.approx(0)


def test_no_images_means_nan() -> None:
    none = np.empty(0, np.int64)
    assert math.isnan(metrics.accuracy(none, none))
    assert math.isnan(metrics.balanced_accuracy(metrics.confusion(none, none, 2)))
    assert math.isnan(metrics.log_loss(none, np.empty((0, 2))))
    assert math.isnan(metrics.calibration_error(none, np.empty((0, 2))))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 8), images=st.integers(1, 60))
def test_agrees_with_sklearn(seed: int, classes: int, images: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, images)
    probabilities = generator.dirichlet(np.full(classes, 0.7), images) * 0.98 + 0.02 / classes
    predicted = probabilities.argmax(axis=1)
    matrix = metrics.confusion(labels, predicted, classes)
    present = np.unique(labels)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=np.nan
    )
    found = metrics.per_class(matrix)
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_allclose(found.f1[present], np.nan_to_num(f1[present]))
    np.testing.assert_array_equal(found.support, support)
    assert metrics.accuracy(labels, predicted) == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    assert metrics.balanced_accuracy(matrix) == pytest.approx(
        sklearn_metrics.recall_score(labels, predicted, labels=present, average="macro", zero_division=0)
    )
    assert metrics.macro_f1(matrix) == pytest.approx(
        sklearn_metrics.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    )
    for average, mean in (("macro", metrics.macro_mean), ("weighted", metrics.weighted_mean)):
        for name in ("precision", "recall", "f1"):
            expected = getattr(sklearn_metrics, f"{name}_score")(
                labels, predicted, labels=present, average=average, zero_division=0
            )
            assert mean(getattr(found, name), found.support) == pytest.approx(expected)
    assert metrics.log_loss(labels, probabilities) == pytest.approx(
        sklearn_metrics.log_loss(labels, probabilities, labels=range(classes))
    )
    for k in range(1, classes):
        expected = np.mean([label in np.argsort(row)[-k:] for label, row in zip(labels, probabilities, strict=True)])
        assert metrics.top_k(labels, probabilities, k).mean() == pytest.approx(expected)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6), images=st.integers(1, 40), steps=st.integers(2, 1000))
def test_ranking_agrees_with_sklearn_with_ties_and_classes_without_images(
    seed: int, classes: int, images: int, steps: int
) -> None:
    """Few `steps` make many ties."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, images)
    probabilities = np.round(generator.random((images, classes)) * steps) / steps
    present = np.unique(labels)
    areas, precisions = metrics.roc_auc(labels, probabilities), metrics.average_precision(labels, probabilities)
    known = present if len(present) > 1 else present[:0]
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(areas)), known)
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(precisions)), known)
    for number in known:
        # Mann and Whitney: how often an image of the class comes before another one.
        one, other = probabilities[labels == number, number], probabilities[labels != number, number]
        before = (one[:, None] > other).mean() + (one[:, None] == other).mean() / 2
        assert areas[number] == pytest.approx(before)
        expected = sklearn_metrics.average_precision_score(labels == number, probabilities[:, number])
        assert precisions[number] == pytest.approx(expected)


def test_ranking_by_hand() -> None:
    labels = np.array([0, 1, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    np.testing.assert_allclose(metrics.roc_auc(labels, probabilities), [3 / 4, 3 / 4])
    # Class 0 is found at ranks 1 and 3, class 1 at ranks 1 and 3 too.
    np.testing.assert_allclose(metrics.average_precision(labels, probabilities), [(1 + 2 / 3) / 2] * 2)


def test_ranking_of_a_single_class_is_unknown() -> None:
    assert np.isnan(metrics.roc_auc(np.array([1, 1]), np.eye(2))).all()
    assert np.isnan(metrics.average_precision(np.array([0]), np.array([[1.0, 0.0]]))).all()


def test_ties_fall_to_the_lower_class_as_the_answer_does() -> None:
    tied = np.full((3, 3), 1 / 3)
    assert metrics.top_k(np.array([0, 1, 2]), tied, 1).tolist() == [True, False, False]
    assert metrics.top_k(np.array([0, 1, 2]), tied, 2).tolist() == [True, True, False]


def test_means_count_a_class_that_is_never_predicted_and_no_class_without_images() -> None:
    found = metrics.per_class(metrics.confusion(LABELS, PREDICTED, 3))
    assert metrics.macro_mean(found.precision, found.support) == pytest.approx((2 / 3 + 0) / 2)
    assert metrics.weighted_mean(found.precision, found.support) == pytest.approx((3 * 2 / 3 + 2 * 0) / 5)
    assert metrics.weighted_mean(found.recall, found.support) == pytest.approx(2 / 5)
    assert math.isnan(metrics.weighted_mean(np.array([np.nan]), np.array([0])))
