"""Intervals by the Bayesian bootstrap (Rubin 1981) over groups of near duplicates.

Copies of one picture are right or wrong together, so a group, not an image, is what would be drawn anew. Each draw
weighs every group by an Exp(1) variable. The ordinary bootstrap, which weighs by counts, loses small classes
from a draw and calls 20 right answers of 20 certain. Here no class is ever lost, and pseudo-images with
Gamma(1/2) weights, one for every possible outcome, stand for what has not been seen: for one class and groups of
one image the result is the Jeffreys interval (Brown, Cai & DasGupta 2001), for a difference of two models the Bayesian
counterpart of Agresti & Min (2005).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.metrics import Floats, Ints

JEFFREYS = 0.5  # shape of a pseudo-image's weight
SMALLEST_SHAPE = 1 / 3  # of a group's weight: a class of three groups


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Resampling:
    """How to draw: params.evaluate."""

    resamples: int
    confidence: float  # 0–1
    seed: int


def recall_draws(
    correct: npt.NDArray[np.bool_],
    labels: Ints,
    groups: Ints,
    *,
    classes: int,
    prior: float,
    how: Resampling,
    shapes: Floats | None = None,
) -> Floats:
    """Draws of every class's recall, for M models measured on the same images: float64 [resamples, classes, M].

    `correct` is bool [N, M], `groups` int64 [N] (0 … G-1). `prior` is the shape of each pseudo-image's weight; every
    class gets one for each combination of right and wrong answers of the M models. `shapes` [G] replaces the groups'
    Exp(1) by Gamma(shape) / shape, of mean 1 and variance 1 / shape. A class without images and with a vanishing
    prior may be NaN.
    """
    generator = np.random.default_rng(how.seed)
    outcomes = np.array(list(itertools.product((0.0, 1.0), repeat=correct.shape[1])))
    if shapes is None:
        shapes = np.ones(int(groups.max(initial=-1)) + 1)
    hits = [(labels[correct[:, m]], groups[correct[:, m]]) for m in range(correct.shape[1])]
    draws = np.empty((how.resamples, classes, correct.shape[1]))
    for draw in draws:
        weight = generator.standard_gamma(shapes) / shapes
        pseudo = generator.standard_gamma(prior, size=(classes, len(outcomes)))
        total = np.bincount(labels, weights=weight[groups], minlength=classes) + pseudo.sum(axis=1)
        right = np.stack([np.bincount(c, weights=weight[g], minlength=classes) for c, g in hits], axis=1)
        with np.errstate(invalid="ignore"):
            draw[:] = (right + pseudo @ outcomes) / total[:, None]
    return draws


def accuracy(correct: npt.NDArray[np.bool_], groups: Ints, how: Resampling) -> Interval:
    """Of the share of right answers."""
    if not len(correct):
        return Interval(float("nan"), float("nan"))
    draws = recall_draws(correct[:, None], np.zeros(len(correct), np.int64), groups, classes=1, prior=JEFFREYS, how=how)
    return around(float(correct.mean()), draws[:, 0, 0], how.confidence)


def balanced_accuracy(
    correct: npt.NDArray[np.bool_], labels: Ints, groups: Ints, *, classes: int, estimate: float, how: Resampling
) -> Interval:
    """Of the mean recall over the classes that have images."""
    if not len(correct):
        return Interval(float("nan"), float("nan"))
    draws = mean_recall_draws(correct[:, None], labels, groups, classes=classes, how=how)
    return around(estimate, draws[:, 0], how.confidence)


def mean_recall_draws(
    correct: npt.NDArray[np.bool_], labels: Ints, groups: Ints, *, classes: int, how: Resampling
) -> Floats:
    """Draws of the mean recall of M models: float64 [resamples, M].

    The pseudo-images of one class are shared out over all, for else a hundred classes of three images would be
    pulled towards 1/2 by a hundred opinions instead of one. And a class of n groups is drawn with the shape 1 - 2/n,
    which makes the draws' variance p(1-p) / (n-1): with Exp(1) it is p(1-p) / (n+1), too small for a few images, and
    100 classes of 3 images were covered by 85 % of 95 % intervals, not by 95 %.
    """
    present = np.unique(labels)
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    size = np.bincount(pairs[1], minlength=classes)[pairs[1]]
    shapes = np.ones(int(groups.max()) + 1)
    shapes[pairs[0]] = np.maximum(1 - 2 / size, SMALLEST_SHAPE)
    draws = recall_draws(
        correct, labels, groups, classes=classes, prior=JEFFREYS / len(present), how=how, shapes=shapes
    )
    mean: Floats = draws[:, present].mean(axis=1)
    return mean


def around(estimate: float, draws: Floats, confidence: float) -> Interval:
    """The central `confidence` of the draws, widened to hold the estimate (which may lie on the edge: 20 of 20)."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(min(float(low), estimate), max(float(high), estimate))
