from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from pipeline.profiling import discriminant


def blobs(images: int, classes: int, *, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    centres = random.normal(0, 1, (classes, 8))
    return centres[labels] + random.normal(0, spread, (images, 8)), labels


def test_answers_are_those_of_scikit_learn_fitted_on_the_other_folds() -> None:
    points, classes = blobs(200, 4, spread=1.0)
    fold = np.arange(200) // 40

    scores = discriminant.out_of_fold(points, classes, fold)

    for number in range(discriminant.FOLDS):
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=discriminant.SHRINKAGE)
        theirs.fit(points[fold != number], classes[fold != number])
        # They divide the covariance by N, we by N - K.
        expected = theirs.predict_proba(points[fold == number])
        np.testing.assert_allclose(softmax(scores[fold == number], axis=1), expected, atol=0.02)


def test_a_class_that_the_other_folds_lack_is_impossible() -> None:
    points, classes = blobs(40, 3, spread=1.0)
    fold = np.where(classes == 2, 0, np.arange(40) % discriminant.FOLDS)

    scores = discriminant.out_of_fold(points, classes, fold)

    assert np.isneginf(scores[fold == 0, 2]).all()
    assert np.isfinite(scores[fold != 0]).all()


@pytest.mark.parametrize("share", [0.0, 0.04], ids=["all labels right", "4 % wrong"])
@pytest.mark.parametrize("factor", [1.0, 8.0], ids=["modest", "too sure"])
def test_calibration_finds_the_factor_and_the_share_of_wrong_labels(factor: float, share: float) -> None:
    random = np.random.default_rng(1)
    scores = random.normal(0, 3.0, (20_000, 5))
    true = softmax(scores, axis=1)
    classes = (true.cumsum(axis=1)[:, :-1] < random.random((len(scores), 1))).sum(axis=1)
    drawn = random.random(len(scores)) < share
    classes[drawn] = random.integers(0, 5, drawn.sum())

    probabilities, wrong = discriminant.calibrated(factor * scores, classes)

    np.testing.assert_allclose(probabilities, true, atol=0.05)
    assert wrong == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.12], ids=["all labels right", "3 % wrong", "12 % wrong"])
def test_margins_that_are_alike_leave_no_doubt(share: float) -> None:
    random = np.random.default_rng(4)
    right = np.arange(6000) % 4
    similar = (right + 1) % 4
    scores = 20.0 * np.eye(4)[right] + 5.0 * np.eye(4)[similar] + random.normal(0, 0.5, (6000, 4))
    wrong = random.random(6000) < share

    probabilities, drawn = discriminant.calibrated(scores, np.where(wrong, similar, right))

    assert probabilities[np.arange(6000), right].min() > 0.999
    assert drawn == pytest.approx(share * 4 / 3, abs=0.01)  # one of four labels drawn at random is right


def test_principal_components_keep_distances_where_there_are_few() -> None:
    vectors = np.random.default_rng(2).normal(0, 1, (10, 50)).astype(np.float32)

    points = discriminant.principal(vectors)

    assert points.shape == (10, 9)
    np.testing.assert_allclose(
        np.linalg.norm(points[1] - points[4]), np.linalg.norm(vectors[1] - vectors[4]), rtol=1e-5
    )
