"""Intervals by the Bayesian bootstrap (Rubin 1981) over groups of near duplicates.

Copies of one picture are right or wrong together, so a group, not an image, is what would be drawn anew. Each draw
weighs every group by an Exp(1) variable. The ordinary bootstrap, which weighs by counts, loses small classes
from a draw and calls 20 right answers of 20 certain. Here no class is ever lost, and pseudo-groups with
Gamma(1/2) weights, one for every possible outcome and of the mean size, stand for what has not been seen: for one class
and groups of one image the result is the Jeffreys interval (Brown, Cai & DasGupta 2001), for a difference of two models
the Bayesian counterpart of Agresti & Min (2005).

Shares of right answers and their differences are ratios of weighted sums, whose distribution `ratios` gives exactly;
what is averaged over classes or bins is drawn.

Throughout: `labels` and `predicted` are int64 [N] class numbers, `groups` int64 [N], 0 … G-1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pipeline.evaluation import metrics, ratios
from pipeline.evaluation.metrics import Floats, Ints

JEFFREYS = 0.5  # shape of a pseudo-group's weight
SMALLEST_SHAPE = 1 / 3  # of a group's weight: a class of three groups
_AT_ONCE = 1 << 21  # numbers in one array of draws: 16 MB

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


UNKNOWN = Interval(float("nan"), float("nan"))


@dataclass(frozen=True)
class Resampling:
    """How to draw: params.evaluate."""

    resamples: int
    confidence: float  # 0–1
    seed: int

    def together(self, count: int) -> float:
        """The confidence of each of `count` intervals that makes all of them hold together with `confidence`, however
        their images overlap (Bonferroni)."""
        return 1 - (1 - self.confidence) / max(count, 1)


def share(correct: Bools, groups: Ints, confidence: float) -> Interval:
    """Of the share of right answers, bool [N]."""
    return _ratio(correct.astype(np.float64), groups, (0.0, 1.0), confidence)


def difference(correct: Bools, groups: Ints, confidence: float) -> Interval:
    """Of the difference of two models' shares of right answers on the same images, bool [N, 2]: first minus second.

    The tails are not drawn, so `confidence` may be as near to 1 as `Resampling.together` asks for.
    """
    scores = correct[:, 0].astype(np.float64) - correct[:, 1]
    return _ratio(scores, groups, (0.0, 1.0, -1.0, 0.0), confidence)


def _ratio(scores: Floats, groups: Ints, outcomes: tuple[float, ...], confidence: float) -> Interval:
    """Of the mean score; `outcomes` are the scores of the pseudo-groups."""
    if not len(scores):
        return UNKNOWN
    place = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(place).astype(np.float64)
    size = float(sizes.mean())
    ratio = ratios.merged(
        np.append(np.bincount(place, weights=scores), size * np.array(outcomes)),
        np.append(sizes, np.full(len(outcomes), size)),
        np.append(np.ones(len(sizes)), np.full(len(outcomes), JEFFREYS)),
    )
    tail = (1 - confidence) / 2
    return _around(float(scores.mean()), ratios.quantile(ratio, tail), ratios.quantile(ratio, 1 - tail))


def balanced_accuracy(
    correct: Bools, labels: Ints, groups: Ints, *, classes: int, estimate: float, how: Resampling
) -> Interval:
    """Of the mean recall over the classes that have images; `correct` bool [N]."""
    if not len(correct):
        return UNKNOWN
    return central(estimate, mean_recall_draws(correct[:, None], labels, groups, classes=classes, how=how)[:, 0], how)


def mean_recall_draws(correct: Bools, labels: Ints, groups: Ints, *, classes: int, how: Resampling) -> Floats:
    """Draws of the mean recall of M models, bool [N, M], over the classes that have images: float64 [resamples, M].

    The pseudo-groups of one class are shared out over all, for else a hundred classes of three images would be
    pulled towards 1/2 by a hundred opinions instead of one. And a class of n groups is drawn with the shape 1 - 2/n,
    which makes the draws' variance p(1-p) / (n-1): with Exp(1) it is p(1-p) / (n+1), too small for a few images, and
    100 classes of 3 images were covered by 85 % of 95 % intervals, not by 95 %.
    """
    outcomes = np.array(list(itertools.product((0.0, 1.0), repeat=correct.shape[1])))
    support = _sums(groups, labels, classes)
    hits = [_sums(groups[right], labels[right], classes, int(groups.max()) + 1) for right in correct.T]
    draws = []
    for weight, pseudo in _draws(labels, groups, classes, len(outcomes), how):
        total = weight @ support + pseudo.sum(axis=2)
        right = np.stack([weight @ its for its in hits], axis=2) + pseudo @ outcomes
        present = support.sum(axis=0) > 0
        draws.append((right[:, present] / total[:, present, None]).mean(axis=1))
    return np.concatenate(draws)


def macro_f1(
    labels: Ints, predicted: Ints, groups: Ints, *, classes: int, estimate: float, how: Resampling
) -> Interval:
    """Of the mean F1 over the classes that have images, drawn as `mean_recall_draws` does.

    A wrong answer of a pseudo-group names each of the other classes alike.
    """
    if not len(labels):
        return UNKNOWN
    count = int(groups.max()) + 1
    right = labels == predicted
    support, answers = _sums(groups, labels, classes), _sums(groups, predicted, classes)
    hits = _sums(groups[right], labels[right], classes, count)
    present = support.sum(axis=0) > 0
    draws = []
    for weight, pseudo in _draws(labels, groups, classes, 2, how):
        wrong, hit = pseudo[:, :, 0], pseudo[:, :, 1]
        named = hit + (wrong.sum(axis=1, keepdims=True) - wrong) / max(classes - 1, 1)
        both = weight @ (support + answers) + wrong + hit + named
        draws.append((2 * (weight @ hits + hit)[:, present] / both[:, present]).mean(axis=1))
    return central(estimate, np.concatenate(draws), how)


def log_loss(losses: Floats, groups: Ints, how: Resampling) -> Interval:
    """Of the mean of the images' losses, float64 [N]; NaN for fewer than two groups, which tell no spread."""
    totals: Floats = np.bincount(groups, weights=losses).astype(np.float64)[:, None]
    return central(float(losses.mean()), _mean_draws(totals, groups, how)[:, 0], how) if len(totals) > 1 else UNKNOWN


def calibration_error(labels: Ints, probabilities: Floats, groups: Ints, noise: float, how: Resampling) -> Interval:
    """Of the expected calibration error, by reflected percentiles (Davison & Hinkley 1997, section 5.2).

    Absolute gaps are raised by noise, in the draws once more than in the estimate; twice the estimate minus the draws
    takes that out again. An estimate that is not above `noise`, what a perfectly calibrated model may have by chance,
    leaves 0 possible. NaN for fewer than two groups.
    """
    if not len(groups) or int(groups.max()) == 0:
        return UNKNOWN
    bins, gaps = metrics.calibration_gaps(labels, probabilities)
    totals = np.zeros((int(groups.max()) + 1, metrics.CALIBRATION_BINS))
    np.add.at(totals, (groups, bins), gaps)
    estimate = float(np.abs(totals.sum(axis=0)).sum() / len(groups))
    found = central(estimate, 2 * estimate - np.abs(_mean_draws(totals, groups, how)).sum(axis=1), how)
    return Interval(max(found.low, 0.0) if estimate > noise else 0.0, min(found.high, 1.0))


def _mean_draws(totals: Floats, groups: Ints, how: Resampling) -> Floats:
    """Draws of the mean over images of what groups sum up to, float64 [G, K]: float64 [resamples, K]."""
    sizes = np.bincount(groups).astype(np.float64)
    shape = max(1 - 2 / len(sizes), SMALLEST_SHAPE)
    generator = np.random.default_rng(how.seed)
    draws = []
    for count in _chunks(how.resamples, len(sizes)):
        weight = generator.standard_gamma(shape, (count, len(sizes)))
        draws.append(weight @ totals / (weight @ sizes)[:, None])
    return np.concatenate(draws)


def _draws(labels: Ints, groups: Ints, classes: int, outcomes: int, how: Resampling) -> Iterator[tuple[Floats, Floats]]:
    """Weights of the groups, [B, G], and of the pseudo-groups in images, [B, classes, outcomes]."""
    generator = np.random.default_rng(how.seed)
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    in_class = np.bincount(pairs[1], minlength=classes)  # groups
    shapes = np.ones(int(groups.max()) + 1)
    shapes[pairs[0]] = np.maximum(1 - 2 / in_class[pairs[1]], SMALLEST_SHAPE)
    size = np.bincount(labels, minlength=classes) / np.maximum(in_class, 1)  # none for a class without images
    prior = JEFFREYS / np.count_nonzero(in_class)
    for count in _chunks(how.resamples, max(len(shapes), classes * outcomes)):
        weight = generator.standard_gamma(shapes, (count, len(shapes))) / shapes
        yield weight, generator.standard_gamma(prior, (count, classes, outcomes)) * size[:, None]


def _chunks(draws: int, width: int) -> Iterator[int]:
    step = max(1, _AT_ONCE // width)
    for start in range(0, draws, step):
        yield min(step, draws - start)


def _sums(groups: Ints, numbers: Ints, classes: int, count: int | None = None) -> sparse.csr_array:
    """How many images of each group have each number: [G, classes]."""
    shape = (int(groups.max()) + 1 if count is None else count, classes)
    return sparse.coo_array((np.ones(len(groups)), (groups, numbers)), shape=shape).tocsr()


def central(estimate: float, draws: Floats, how: Resampling) -> Interval:
    """The central `confidence` of the draws, widened to hold the estimate."""
    tail = (1 - how.confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return _around(estimate, float(low), float(high))


def _around(estimate: float, low: float, high: float) -> Interval:
    """The estimate may lie on the edge: 20 of 20."""
    return Interval(min(low, estimate), max(high, estimate))
