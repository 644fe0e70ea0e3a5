from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.evaluation import calibration, metrics


def test_bins_by_hand() -> None:
    # Two answers at 0.65 in (9/15, 10/15], one of them right; one at 0.9 in (13/15, 14/15], right.
    probabilities = np.array([[0.65, 0.35], [0.65, 0.35], [0.1, 0.9]])
    first, second = calibration.bins(np.array([0, 1, 1]), probabilities)
    assert first == {
        "low": pytest.approx(9 / 15),
        "high": pytest.approx(10 / 15),
        "images": 2,
        "confidence": pytest.approx(0.65),
        "accuracy": pytest.approx(0.5),
    }
    assert (second["images"], second["accuracy"]) == (1, pytest.approx(1))


def test_a_calibrated_model_exceeds_the_noise_in_five_percent_of_cases() -> None:
    generator = np.random.default_rng(0)
    groups = np.arange(100)
    above = 0
    for _ in range(300):
        probabilities = generator.dirichlet(np.ones(4), 100)
        labels = (probabilities.cumsum(axis=1) > generator.random((100, 1))).argmax(axis=1)
        noise = calibration.noise(probabilities, groups, resamples=200, seed=3)
        above += metrics.calibration_error(labels, probabilities) > noise
    assert 3 <= above <= 30


def test_copies_make_more_noise_than_as_many_pictures_and_images_less() -> None:
    probabilities = np.random.default_rng(1).dirichlet(np.ones(3), 400)

    def noise(groups: np.ndarray) -> float:
        return calibration.noise(probabilities[: len(groups)], groups, resamples=300, seed=1)

    assert noise(np.arange(400)) < noise(np.arange(100)) < noise(np.arange(400) // 40)


def test_without_images_there_is_no_noise_and_no_bin() -> None:
    assert math.isnan(calibration.noise(np.empty((0, 3)), np.empty(0, np.int64), resamples=100, seed=1))
    assert calibration.bins(np.empty(0, np.int64), np.empty((0, 3))) == []


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_is_taken_back(temperature: float) -> None:
    logits = np.random.default_rng(4).normal(scale=3, size=(50, 6))

    def softmax(z: np.ndarray) -> np.ndarray:
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    found = calibration.uncalibrated(softmax(logits / temperature), temperature)
    np.testing.assert_allclose(found, softmax(logits), rtol=1e-9)


def test_a_probability_of_zero_stays_one() -> None:
    np.testing.assert_array_equal(calibration.uncalibrated(np.array([[1.0, 0.0]]), 2.0), [[1.0, 0.0]])
    assert calibration.uncalibrated(np.empty((0, 2)), 2.0).shape == (0, 2)
