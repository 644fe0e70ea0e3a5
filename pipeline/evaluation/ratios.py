"""The exact distribution of a bootstrapped ratio, for tails that no thousand draws reach.

The Bayesian bootstrap weighs J groups by independent gamma variables w, and a share of right answers, or the difference
of two, is R = sum(w x) / sum(w n), where group j has n images whose answers sum to x. Then

    P(R <= t) = P(sum(w (x - t n)) <= 0),

and a sum of gamma variables has the characteristic function prod (1 - i u l)^-a, which is inverted numerically (Imhof,
Computing the distribution of quadratic forms in normal variables, Biometrika 1961, equation 3.2; gamma shapes for
halves of degrees of freedom). Nothing is drawn: the probability is right to ten digits, near 0 as near 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize

from pipeline.evaluation.metrics import Floats

# The integral is over the logarithm of u. There the integrand is analytic in a strip of half-width pi / 2, so the
# trapezoid rule converges geometrically (Trefethen & Weideman, SIAM Review 2014) as long as it does not turn by more
# than a radian from one point to the next.
_STEP = 0.05
_NEGLIGIBLE = 32.0  # exp(-32) = 1e-14
_VANISHING = 1e-12  # a factor beside the largest
_FAR = 40.0  # standard deviations; beyond the mean of a gamma variable by so many lies exp(-41)


@dataclass(frozen=True)
class Ratio:
    """float64 [J] each: `values` x and `sizes` n > 0 of the groups, `shapes` of their gamma weights. Groups that are
    alike may be one, as gamma variables of one scale add up. At least two different x / n."""

    values: tuple[float, ...]
    sizes: tuple[float, ...]
    shapes: tuple[float, ...]


def merged(values: Floats, sizes: Floats, shapes: Floats) -> Ratio:
    """The ratio of groups, those that are alike added up; float64 [J] each."""
    rows, place = np.unique(np.stack([values, sizes], axis=1), axis=0, return_inverse=True)
    total = np.bincount(place.ravel(), weights=shapes, minlength=len(rows))
    return Ratio(tuple(rows[:, 0].tolist()), tuple(rows[:, 1].tolist()), tuple(total.tolist()))


def probability(ratio: Ratio, threshold: float) -> float:
    """P(R <= threshold), 0-1."""
    factors = np.array(ratio.values) - threshold * np.array(ratio.sizes)
    shapes = np.array(ratio.shapes)
    counted = np.abs(factors) > _VANISHING * np.abs(factors).max()
    shapes, factors = shapes[counted], factors[counted]
    if not (factors > 0).any():
        return 1.0
    if not (factors < 0).any():
        return 0.0
    factors = factors / np.sqrt((shapes * factors**2).sum())
    mean = float((shapes * factors).sum())
    if abs(mean) > _FAR:
        return float(mean < 0)
    # Below, the integrand is the mean times u; above, it falls like u^-sum(shapes) from where all factors count.
    low = -_NEGLIGIBLE - np.log1p(shapes.sum())
    high = -np.log(np.abs(factors).min()) + _NEGLIGIBLE / shapes.sum()
    logarithms = np.arange(low, high, _STEP)
    angle, size, turning = _integrand(factors, shapes, np.exp(logarithms))
    seen = size > -_NEGLIGIBLE
    fastest = float(turning[seen].max())
    step = _STEP
    if fastest * step > 1:
        step = 1 / fastest
        angle, size, _ = _integrand(factors, shapes, np.exp(np.arange(low, logarithms[seen][-1] + _STEP, step)))
    integral = float((np.sin(angle) * np.exp(size)).sum()) * step
    return min(max(0.5 - integral / np.pi, 0.0), 1.0)


def _integrand(factors: Floats, shapes: Floats, u: Floats) -> tuple[Floats, Floats, Floats]:
    """Of the characteristic function, the angle and the logarithm of the absolute value, and how fast the former turns
    with the logarithm of u, in radians at most."""
    angle, size, turning = np.zeros(len(u)), np.zeros(len(u)), np.zeros(len(u))
    for factor, shape in zip(factors, shapes, strict=True):
        x = factor * u
        angle += shape * np.arctan(x)
        size -= shape / 2 * np.log1p(x**2)
        turning += shape * np.abs(x) / (1 + x**2)
    return angle, size, turning


@lru_cache(maxsize=65536)  # of a thousand classes of a few images each, most are alike
def quantile(ratio: Ratio, share: float) -> float:
    """The t at which P(R <= t) is `share`, 0 < share < 1."""
    shares = np.array(ratio.values) / np.array(ratio.sizes)
    low, high = float(shares.min()), float(shares.max())
    return float(optimize.brentq(lambda t: probability(ratio, t) - share, low, high, xtol=1e-7))
