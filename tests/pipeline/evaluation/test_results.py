from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation import results
from pipeline.evaluation.intervals import Resampling

HOW = Resampling(resamples=200, confidence=0.95, seed=1)


def measure(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str], temperature: float | None = None
) -> list[dict[str, Any]]:
    """Every image is a group of its own."""
    groups = np.arange(len(labels))
    found = results.of_test(labels, probabilities, groups, classes, temperature=temperature, top_k=(2, 3), how=HOW)
    return list(found)


def test_a_test_set_of_two_images_and_a_class_without_any() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]])
    found, calibration = results.without_nan(measure(np.array([0, 1]), probabilities, ["a", "b", "c"]))
    assert found["accuracy"] == 0.5
    assert found["accuracy_low"] < 0.1
    assert found["accuracy_high"] > 0.9
    assert found["per_class"]["c"] == {
        **dict.fromkeys(("precision", "recall", "recall_low", "recall_high", "f1", "roc_auc", "average_precision")),
        "support": 0,
    }
    json.dumps([found, calibration], allow_nan=False)


def test_an_empty_test_set_has_no_figures() -> None:
    none = np.empty(0, np.int64)
    found, calibration = results.without_nan(measure(none, np.empty((0, 2)), ["a", "b"]))
    assert found["images"] == 0
    assert found["balanced_accuracy"] is None
    assert found["accuracy_low"] is None
    assert found["macro_f1_high"] is None
    assert found["roc_auc"] is None
    assert calibration["noise"] is None
    assert calibration["bins"] == []


def test_folds_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    one = results.of_fold(0, np.array([0, 0, 1, 1]), probabilities)
    other = results.of_fold(1, np.array([0, 1, 1, 1]), probabilities)
    assert one == {"fold": 0, "images": 4, "accuracy": 1.0, "balanced_accuracy": 1.0}
    assert other["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    found = results.of_folds([one, other])
    assert found["balanced_accuracy_mean"] == pytest.approx(11 / 12)
    assert found["balanced_accuracy_std"] == pytest.approx((1 - 5 / 6) / np.sqrt(2))


def test_without_nan_reaches_every_depth() -> None:
    assert results.without_nan({"a": [float("nan"), {"b": float("nan")}], "c": 1.5}) == {
        "a": [None, {"b": None}],
        "c": 1.5,
    }
