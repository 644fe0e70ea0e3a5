"""Metrics of a classifier: NumPy, and scikit-learn for what is ranked.

Throughout: `labels` and `predicted` are int64 [N] class numbers in 0 … C-1, `probabilities` float [N, C] rows
that sum to 1. A metric that the images cannot tell (no image of a class, no image at all) is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn import metrics as ranked

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
    return share_of(labels == predicted)


def share_of(right: npt.NDArray[np.bool_]) -> float:
    """Of right answers; NaN without any answer."""
    return mean_of_known(right.astype(np.float64))


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


def weighted_mean(values: Floats, support: Ints) -> float:
    """Mean of one value per class, weighted by its images; NaN without images. NaN counts as 0, as in `macro_mean`."""
    if not support.sum():
        return float("nan")
    return float(np.average(np.nan_to_num(values), weights=support))


def macro_mean(values: Floats, support: Ints) -> float:
    """Mean of one value per class over the classes with images. NaN among these counts as 0: the precision of a class
    that has images and is never predicted, which else would be a way to raise the mean."""
    return mean_of_known(np.nan_to_num(values)[support > 0])


def top_k(labels: Ints, probabilities: Floats, k: int) -> npt.NDArray[np.bool_]:
    """Whether the right class is among the k most probable ones, bool [N]; of ties the lower class number comes first,
    as in `argmax`."""
    right = probabilities[np.arange(len(labels)), labels][:, None]
    lower = np.arange(probabilities.shape[1]) < labels[:, None]
    before = (probabilities > right) | ((probabilities == right) & lower)
    found: npt.NDArray[np.bool_] = before.sum(axis=1) < k
    return found


def roc_auc(labels: Ints, probabilities: Floats) -> Floats:
    """Area under each class's ROC curve, one against the rest: float64 [C] in 0–1, NaN unless it and the others have
    images."""
    return _of_classes(ranked.roc_auc_score, labels, probabilities)


def average_precision(labels: Ints, probabilities: Floats) -> Floats:
    """Average precision of each class, one against the rest, without interpolation: float64 [C] in 0–1, NaN as in
    `roc_auc`."""
    return _of_classes(ranked.average_precision_score, labels, probabilities)


def _of_classes(score: Callable[..., float], labels: Ints, probabilities: Floats) -> Floats:
    found = np.full(probabilities.shape[1], np.nan)
    for number in np.unique(labels) if len(np.unique(labels)) > 1 else ():
        found[number] = score(labels == number, probabilities[:, number])
    return found


def log_losses(labels: Ints, probabilities: Floats) -> Floats:
    """-ln(probability of the right class) of each image, float64 [N], in nats; clipped at `SMALLEST_PROBABILITY`."""
    right = probabilities[np.arange(len(labels)), labels]
    losses: Floats = -np.log(np.clip(right, SMALLEST_PROBABILITY, 1.0))
    return losses


def log_loss(labels: Ints, probabilities: Floats) -> float:
    """Mean of `log_losses`."""
    return mean_of_known(log_losses(labels, probabilities))


def calibration_error(labels: Ints, probabilities: Floats) -> float:
    """Expected calibration error, 0–1: |accuracy - confidence| averaged over bins of equal width by their images.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3; bin m is ((m-1)/bins, m/bins].
    """
    if not len(labels):
        return float("nan")
    bins, gaps = calibration_gaps(labels, probabilities)
    return float(np.abs(np.bincount(bins, weights=gaps)).sum() / len(labels))


def calibration_gaps(labels: Ints, probabilities: Floats) -> tuple[Ints, Floats]:
    """Of each image: the number of its bin, 0 … `CALIBRATION_BINS` - 1, and right (0 or 1) minus confidence."""
    confidence = probabilities.max(axis=1)
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1
    return np.clip(bins, 0, CALIBRATION_BINS - 1), (probabilities.argmax(axis=1) == labels) - confidence


def mean_of_known(values: Floats) -> float:
    """Mean of what is not NaN; NaN if all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ratio(numerator: Floats, denominator: Ints) -> Floats:
    result = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
