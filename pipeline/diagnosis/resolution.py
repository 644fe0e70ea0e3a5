"""Images much smaller or much larger than what the network looks at."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from pipeline.diagnosis.cause import Cause, need, ramp
from pipeline.diagnosis.compared import compare
from pipeline.diagnosis.facts import Facts

STRIDE = 32  # pixels: backbones halve the image five times
SMALLEST = 96  # pixels: below, their last feature map is 3 x 3 or less
DOWNSCALED = 3.0  # median short side / input side above which small detail is averaged away


def find(facts: Facts) -> Iterator[Cause]:
    median = statistics.median(answer.short_side for answer in facts.answers)
    yield from _upscaled(facts, median)
    yield from _small_ones_fail(facts)
    yield from _downscaled(facts, median)


def _upscaled(facts: Facts, median: float) -> Iterator[Cause]:
    """Score: need x ramp of the enlargement, from diagnose.upscale_factor to 4 times it."""
    size, limit = facts.train.input_size, facts.thresholds.upscale_factor
    factor = size / median
    smaller = max(SMALLEST, STRIDE * round(median * limit / STRIDE))
    yield Cause(
        "images too small",
        need(facts) * ramp(factor, limit, 4 * limit),
        (
            f"The median image has a short side of {median:g} pixels and is enlarged {factor:.1f} times to {size}; "
            f"above {limit:g} times the network looks at invented pixels.",
        ),
        "Get the images in their original size. A smaller input loses nothing here and trains faster.",
        {"train.input_size": smaller} if smaller < size else {},
    )


def _small_ones_fail(facts: Facts) -> Iterator[Cause]:
    """Score: ramp of the accuracy that enlarged images lose against the others, 0 to 0.3, if beyond chance."""
    edge = facts.train.input_size / facts.thresholds.upscale_factor
    small = [answer for answer in facts.answers if answer.short_side < edge]
    shares = compare([answer for answer in facts.answers if answer.short_side >= edge], small)
    if shares is None or not shares.beyond_chance:
        return
    yield Cause(
        "small images fail",
        ramp(shares.drop, 0, 0.3),
        (
            f"Of {shares.images[1]} images with a short side below {edge:g} pixels {shares.second:.0%} are classified "
            f"right, of the {shares.images[0]} larger ones {shares.first:.0%}.",
        ),
        "Find out where the small images come from and get larger ones, or keep them out with validate.min_side.",
        {},
    )


def _downscaled(facts: Facts, median: float) -> Iterator[Cause]:
    """Score: half of need x ramp of the reduction, from 3 to 12 times: whether detail matters is not measured."""
    size = facts.train.input_size
    factor = median / size
    larger = min(1024, STRIDE * round(size * 1.5 / STRIDE))
    yield Cause(
        "detail lost by shrinking",
        0.5 * need(facts) * ramp(factor, DOWNSCALED, 4 * DOWNSCALED),
        (f"The median image has a short side of {median:g} pixels and is shrunk {factor:.1f} times to {size}.",),
        "If the classes differ in small detail, use a larger input or crop the images to what matters.",
        {"train.input_size": larger} if larger > size else {},
    )
