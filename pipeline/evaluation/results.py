"""metrics/evaluate.json from answers: plain numbers by name; what cannot be told is NaN until `without_nan`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation import calibration, intervals, metrics
from pipeline.evaluation.intervals import Interval, Resampling
from pipeline.evaluation.metrics import Floats, Ints, mean_of_known


def of_test(
    labels: Ints,
    probabilities: Floats,
    groups: Ints,
    classes: Sequence[str],
    *,
    temperature: float | None,
    top_k: Sequence[int],
    how: Resampling,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections `test` and `calibration`. Shapes as in `metrics`; `groups` int64 [N], 0 … G-1.

    `temperature`: that the probabilities have been calibrated with, None if that is not known.
    """
    predicted = answers(probabilities)
    matrix = metrics.confusion(labels, predicted, len(classes))
    of_class = metrics.per_class(matrix)
    correct = predicted == labels
    losses = metrics.log_losses(labels, probabilities)
    error = metrics.calibration_error(labels, probabilities)
    noise = calibration.noise(probabilities, groups, resamples=how.resamples, seed=how.seed)
    areas, precisions = metrics.roc_auc(labels, probabilities), metrics.average_precision(labels, probabilities)
    balanced, f1 = metrics.balanced_accuracy(matrix), metrics.macro_f1(matrix)
    count = len(classes)
    measured = {
        "accuracy": (metrics.share_of(correct), intervals.share(correct, groups, how.confidence)),
        "balanced_accuracy": (
            balanced,
            intervals.balanced_accuracy(correct, labels, groups, classes=count, estimate=balanced, how=how),
        ),
        "macro_f1": (f1, intervals.macro_f1(labels, predicted, groups, classes=count, estimate=f1, how=how)),
        "log_loss": (mean_of_known(losses), intervals.log_loss(losses, groups, how)),
        "calibration_error": (error, intervals.calibration_error(labels, probabilities, groups, noise, how)),
    }
    test = {
        "images": len(labels),
        **{key: number for name, found in measured.items() for key, number in _spread(name, *found).items()},
        "macro_precision": metrics.macro_mean(of_class.precision, of_class.support),
        "weighted_precision": metrics.weighted_mean(of_class.precision, of_class.support),
        "weighted_recall": metrics.weighted_mean(of_class.recall, of_class.support),
        "weighted_f1": metrics.weighted_mean(of_class.f1, of_class.support),
        "roc_auc": mean_of_known(areas),
        "average_precision": mean_of_known(precisions),
        "top_k": {
            str(k): _spread(
                "value",
                metrics.share_of(right),
                intervals.share(right, groups, how.confidence),
                prefix="",
            )
            for k in top_k
            if k < count
            for right in [metrics.top_k(labels, probabilities, k)]
        },
        "per_class": {
            name: {
                "precision": float(of_class.precision[number]),
                **_spread(
                    "recall",
                    float(of_class.recall[number]),
                    intervals.share(correct[labels == number], groups[labels == number], how.confidence),
                ),
                "f1": float(of_class.f1[number]),
                "support": int(of_class.support[number]),
                "roc_auc": float(areas[number]),
                "average_precision": float(precisions[number]),
            }
            for number, name in enumerate(classes)
        },
    }
    return test, of_calibration(labels, probabilities, temperature, error, noise)


def of_calibration(
    labels: Ints, probabilities: Floats, temperature: float | None, error: float, noise: float
) -> dict[str, Any]:
    """The section `calibration`."""
    before = None if temperature is None else calibration.uncalibrated(probabilities, temperature)
    return {
        "error": error,
        "noise": noise,
        "temperature": temperature,
        "error_before": None if before is None else metrics.calibration_error(labels, before),
        "log_loss_before": None if before is None else metrics.log_loss(labels, before),
        "bins": calibration.bins(labels, probabilities),
    }


def _spread(name: str, value: float, interval: Interval, prefix: str | None = None) -> dict[str, float]:
    prefix = f"{name}_" if prefix is None else prefix
    return {name: value, f"{prefix}low": interval.low, f"{prefix}high": interval.high}


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
