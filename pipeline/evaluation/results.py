"""metrics/evaluate.json from answers: plain numbers by name; what cannot be told is NaN until `without_nan`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation import intervals, metrics
from pipeline.evaluation.intervals import Resampling
from pipeline.evaluation.metrics import Floats, Ints, mean_of_known


def of_test(
    labels: Ints, probabilities: Floats, groups: Ints, classes: Sequence[str], how: Resampling
) -> dict[str, Any]:
    """The section `test`. Shapes as in `metrics`; `groups` int64 [N], 0 … G-1."""
    predicted = answers(probabilities)
    matrix = metrics.confusion(labels, predicted, len(classes))
    per_class = metrics.per_class(matrix)
    balanced = metrics.balanced_accuracy(matrix)
    correct = predicted == labels
    accuracy_interval = intervals.accuracy(correct, groups, how)
    balanced_interval = intervals.balanced_accuracy(
        correct, labels, groups, classes=len(classes), estimate=balanced, how=how
    )
    return {
        "images": len(labels),
        "accuracy": metrics.accuracy(labels, predicted),
        "accuracy_low": accuracy_interval.low,
        "accuracy_high": accuracy_interval.high,
        "balanced_accuracy": balanced,
        "balanced_accuracy_low": balanced_interval.low,
        "balanced_accuracy_high": balanced_interval.high,
        "macro_f1": metrics.macro_f1(matrix),
        "log_loss": metrics.log_loss(labels, probabilities),
        "calibration_error": metrics.calibration_error(labels, probabilities),
        "per_class": {
            name: {
                "precision": float(per_class.precision[number]),
                "recall": float(per_class.recall[number]),
                "f1": float(per_class.f1[number]),
                "support": int(per_class.support[number]),
            }
            for number, name in enumerate(classes)
        },
    }


def of_fold(fold: int, labels: Ints, probabilities: Floats) -> dict[str, Any]:
    """An entry of `cross_validation.folds`."""
    predicted = answers(probabilities)
    matrix = metrics.confusion(labels, predicted, probabilities.shape[1])
    return {
        "fold": fold,
        "images": len(labels),
        "accuracy": metrics.accuracy(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy(matrix),
    }


def of_folds(folds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The section `cross_validation`; the standard deviation is the sample's (n - 1)."""
    scores = np.array([fold["balanced_accuracy"] for fold in folds], np.float64)
    known = scores[~np.isnan(scores)]
    return {
        "folds": list(folds),
        "balanced_accuracy_mean": mean_of_known(scores),
        "balanced_accuracy_std": float(known.std(ddof=1)) if len(known) > 1 else float("nan"),
    }


def answers(probabilities: Floats) -> Ints:
    """The most probable class of each row, int64 [N]."""
    best: Ints = probabilities.argmax(axis=1).astype(np.int64)
    return best


def without_nan(value: Any) -> Any:
    """A copy with None for every NaN: JSON has no NaN."""
    match value:
        case dict():
            return {key: without_nan(item) for key, item in value.items()}
        case list():
            return [without_nan(item) for item in value]
        case float() if math.isnan(value):
            return None
    return value
