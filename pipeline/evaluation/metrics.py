"""Metrics of a classifier, in NumPy.

Throughout: `labels` and `predicted` are int64 [N] class numbers in 0 … C-1, `probabilities` float [N, C] rows
that sum to 1. A metric that the images cannot tell (no image of a class, no image at all) is NaN, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# The most certain wrong answer costs -log of this: float32 cannot tell a smaller probability from 0 beside 1.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class PerClass:
    """One value per class, float64 [C] in 0–1 or NaN; support is the number of images, int64 [C]."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Ints


def confusion(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """int64 [C, C]: row = actual, column = predicted."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def accuracy(labels: Ints, predicted: Ints) -> float:
    return mean_of_known((labels == predicted).astype(np.float64))


def per_class(matrix: Ints) -> PerClass:
    """From a confusion matrix. Precision is NaN for a class never predicted, recall and F1 for one without images."""
    hits = np.diagonal(matrix).astype(np.float64)
    support, answers = matrix.sum(axis=1), matrix.sum(axis=0)
    # F1 = 2 hits / (support + answers): defined, and 0, for a class that has images and is never predicted.
    f1 = np.where(support > 0, _ratio(2 * hits, support + answers), np.nan)
    return PerClass(_ratio(hits, answers), _ratio(hits, support), f1, support)


def balanced_accuracy(matrix: Ints) -> float:
    """Mean recall of the classes that have images."""
    return mean_of_known(per_class(matrix).recall)


def macro_f1(matrix: Ints) -> float:
    """Mean F1 of the classes that have images."""
    return mean_of_known(per_class(matrix).f1)


def log_loss(labels: Ints, probabilities: Floats) -> float:
    """Mean of -ln(probability of the right class), in nats; probabilities are clipped at `SMALLEST_PROBABILITY`."""
    right = probabilities[np.arange(len(labels)), labels]
    return mean_of_known(-np.log(np.clip(right, SMALLEST_PROBABILITY, 1.0)))


def calibration_error(labels: Ints, probabilities: Floats, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error, 0–1: |accuracy - confidence| averaged over bins of equal width by their images.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3; bin m is ((m-1)/bins, m/bins].
    """
    if not len(labels):
        return float("nan")
    confidence = probabilities.max(axis=1)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, weights=(probabilities.argmax(axis=1) == labels) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def mean_of_known(values: Floats) -> float:
    """Mean of what is not NaN; NaN if all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ratio(numerator: Floats, denominator: Ints) -> Floats:
    result = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
