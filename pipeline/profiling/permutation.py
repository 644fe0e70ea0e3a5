"""Are two samples of one kind? Many statistics of the same rows, judged by one permutation null.

If it does not matter which rows are the new ones, any other choice of as many rows could as well have been them. So
the statistics are computed for the real choice and for many random ones, always for all features of the same rows:
features that move together (brightness and the channel means) are then not counted as independent evidence, and the
null fits the sizes of the samples and the ties of the values by itself. What is rare is judged by the largest
statistic of all (Westfall and Young, Resampling-Based Multiple Testing, 1993, step-down maxT), so the rate of any
false alarm is at most alpha.

Rows that came together (the frames of one video) are not exchangeable one by one, they must be drawn as a cluster.

Throughout, N is the number of rows of both samples and B of draws; the first draw is the real one, so the p-values
are exact (Phipson and Smyth, 2010), whatever the number of draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy

BINS = 256  # a Kolmogorov-Smirnov distance is exact to 1 / BINS
CELLS = 1 << 16  # of draws x bins that are counted at once: 512 KB, which stay in the cache (a third faster than 2 MB)

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """Some of the choices of rows: `rows[i]` belongs to choice `owner[i]` of `count`."""

    rows: Indices
    owner: Indices
    count: int

    def histogram(self, codes: Indices, bins: int) -> Indices:
        """int64 [count, bins]: how many rows of each choice have each code."""
        cells = self.owner * bins + codes[self.rows]
        return np.bincount(cells, minlength=self.count * bins).reshape(self.count, bins)


def draws(new: npt.NDArray[np.bool_], clusters: Indices, count: int, seed: int, chunk: int) -> Iterator[Draws]:
    """The real choice and `count` random ones of as many clusters, at most `chunk` at once.

    Args:
        new: [N], which rows are the new ones.
        clusters: int64 [N], equal for rows that are drawn together. One with rows on both sides counts as two.
        seed: of the random choices.
    """
    _, cluster_of = np.unique(clusters * 2 + new, return_inverse=True)
    sizes = np.bincount(cluster_of)
    members = np.argsort(cluster_of, kind="stable")  # the rows of cluster k start at starts[k]
    starts = np.cumsum(sizes) - sizes
    real = np.unique(cluster_of[new])
    if 2 * len(real) > len(sizes):  # the statistics are symmetric and the smaller side is cheaper to draw
        real = np.setdiff1d(np.arange(len(sizes)), real)
    random = np.random.default_rng(seed)
    for first in range(0, count + 1, chunk):
        chosen = np.stack(
            [
                random.choice(len(sizes), len(real), replace=False, shuffle=False) if number else real
                for number in range(first, min(first + chunk, count + 1))
            ]
        )
        flat = chosen.ravel()
        ends = np.cumsum(sizes[flat])
        within = np.arange(ends[-1]) - np.repeat(ends - sizes[flat], sizes[flat])
        owner = np.repeat(np.arange(len(chosen)), sizes[chosen].sum(axis=1))
        yield Draws(members[np.repeat(starts[flat], sizes[flat]) + within], owner, len(chosen))


def binned(values: npt.NDArray[np.number]) -> Indices:
    """int64 [N], 0 to `BINS` - 1, in the order of the values, each bin with about as many rows; ties share one."""
    return np.searchsorted(np.sort(values), values) * min(len(values), BINS) // len(values)


def kolmogorov_smirnov(codes: Indices, chosen: Draws) -> Floats:
    """float64 [count], 0-1: the largest difference of the cumulative distributions of what is chosen and of the rest.

    At most 1 / `BINS` below that of the values themselves: inside a bin of N / `BINS` rows the difference would have to
    rise by the chosen ones' share of all that are chosen and fall by the others' share of all others.
    """
    bins = int(codes.max()) + 1
    inside = np.cumsum(chosen.histogram(codes, bins), axis=1, dtype=np.float64)
    n = inside[:, -1].copy()
    # inside / n - outside / m with n + m = N is (inside N / n - all) / m: two passes over the table, in place.
    inside *= len(codes) / n[:, np.newaxis]
    inside -= np.cumsum(np.bincount(codes, minlength=bins))
    return np.abs(inside, out=inside).max(axis=1) / (len(codes) - n)


def total_variation(codes: Indices, chosen: Draws) -> Floats:
    """float64 [count], 0-1: the share that would have to change its class for the two mixes to be the same."""
    inside, outside = _classes(codes, chosen)
    shares = inside / inside.sum(axis=1, keepdims=True), outside / outside.sum(axis=1, keepdims=True)
    return np.abs(shares[0] - shares[1]).sum(axis=1) / 2


def surprises(codes: Indices, chosen: Draws) -> Floats:
    """float64 [count, classes]: how unlike its share among the rest is each class's share among what is chosen.

    The root of the likelihood ratio G (Wilks 1938) of the table chosen or not x class or not, about a standard normal
    deviate. Unlike Pearson's residual it stays moderate for a class of one image, so rare classes do not drown others.
    """
    inside, outside = _classes(codes, chosen)
    n, m = inside.sum(axis=1, keepdims=True), outside.sum(axis=1, keepdims=True)
    share = (inside + outside) / (n + m)
    rest = np.where(share < 1, 1 - share, 1.0)  # with a single class there is no rest, and nothing to be surprised by
    g = (
        xlogy(inside, inside / (n * share))
        + xlogy(outside, outside / (m * share))
        + xlogy(n - inside, (n - inside) / (n * rest))
        + xlogy(m - outside, (m - outside) / (m * rest))
    )
    return np.sqrt(2 * np.maximum(g, 0))


def _classes(codes: Indices, chosen: Draws) -> tuple[Indices, Indices]:
    bins = int(codes.max()) + 1
    inside = chosen.histogram(codes, bins)
    return inside, np.bincount(codes, minlength=bins) - inside


@dataclass(frozen=True)
class Judgement:
    real: Floats  # [S], the statistics of the real choice
    p_values: Floats  # [S], 0-1, adjusted for all statistics
    critical: Floats  # [S], what a statistic must exceed to be significant


def judge(statistics: Floats, alpha: float) -> Judgement:
    """Step-down maxT over statistics float64 [S, B] whose first draw is the real one.

    Each is first put on a common scale by its mean and standard deviation over the draws, so that one with many ties,
    which varies less, is not drowned by the others. p <= alpha just where a statistic is above its critical value.
    """
    mean, deviation = statistics.mean(axis=1, keepdims=True), statistics.std(axis=1, keepdims=True)
    varies = deviation > 1e-12  # what is the same for all draws but for rounding tells nothing
    scaled = np.where(varies, statistics - mean, 0) / np.where(varies, deviation, 1)
    order = np.argsort(-scaled[:, 0], kind="stable")
    # Row k: the largest of the statistics that are left when the k most extreme ones have been judged.
    largest = np.maximum.accumulate(scaled[order][::-1], axis=0)[::-1]
    p_values = np.empty(len(order))
    p_values[order] = np.maximum.accumulate((largest >= scaled[order, :1]).mean(axis=1))
    # The first that is not significant ends the step-down, so what it fell short of is the bar for all.
    stop = min(int((p_values <= alpha).sum()), len(order) - 1)
    as_extreme = math.floor(alpha * statistics.shape[1])  # draws that may be
    limit = np.sort(largest[stop])[-1 - as_extreme]
    return Judgement(statistics[:, 0], p_values, (mean + limit * deviation)[:, 0])
