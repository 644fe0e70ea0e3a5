"""Too few images, or too unevenly spread over the classes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from pipeline.diagnosis.cause import Cause, need, ramp
from pipeline.diagnosis.facts import Facts

PLENTY, SCARCE = 100, 10  # different pictures per class: fine-tuning gains little from more; hardly learns from fewer
EVEN, UNEVEN = 3, 20  # largest class / smallest class
MANY_VIEWS = 6  # augmented copies per image beyond which copies are all alike


def find(facts: Facts) -> Iterator[Cause]:
    yield from _few(facts)
    yield from _imbalance(facts)


def _few(facts: Facts) -> Iterator[Cause]:
    """Score: need x ramp of log(median pictures per class) from 100 down to 10."""
    sizes = facts.training_groups
    median = statistics.median(sizes.values())
    score = need(facts) * ramp(math.log(max(median, 1)), math.log(PLENTY), math.log(SCARCE))
    smallest = sorted(sizes, key=lambda label: (sizes[label], label))[:3]
    views = facts.train.views
    yield Cause(
        "too few images",
        score,
        (
            f"Half of the {len(sizes)} classes have {median:g} different training pictures or fewer.",
            "Smallest: " + ", ".join(f"{label} {sizes[label]}" for label in smallest) + ".",
        ),
        f"Collect images, first of {smallest[0]}; {PLENTY} different pictures per class are a good aim.",
        {"train.views": views + 2} if views < MANY_VIEWS else {},
    )


def _imbalance(facts: Facts) -> Iterator[Cause]:
    """Score: ramp of log(largest / smallest class) from 3 to 20 x ramp of the small classes' lower recall, 0 to 0.2."""
    sizes = {label: size for label, size in facts.training_groups.items() if size}
    recall = _recall(facts)
    ordered = sorted((label for label in sizes if label in recall), key=lambda label: (sizes[label], label))
    if len(ordered) < 2:
        return
    half = len(ordered) // 2
    small, large = (statistics.fmean(recall[label] for label in part) for part in (ordered[:half], ordered[-half:]))
    ratio = sizes[ordered[-1]] / sizes[ordered[0]]
    score = ramp(math.log(ratio), math.log(EVEN), math.log(UNEVEN)) * ramp(large - small, 0, 0.2)
    yield Cause(
        "imbalanced classes",
        score,
        (
            f"{ordered[-1]} has {ratio:.1f} times the pictures of {ordered[0]} "
            f"({sizes[ordered[-1]]} and {sizes[ordered[0]]}).",
            f"The smaller half of the classes is recalled {small:.0%} on average, the larger half {large:.0%}.",
        ),
        f"Collect images of {ordered[0]}; weigh the classes in training until then.",
        facts.weigh,
    )


def _recall(facts: Facts) -> dict[str, float]:
    right: dict[str, list[bool]] = {}
    for answer in facts.answers:
        right.setdefault(answer.label, []).append(answer.right)
    return {label: statistics.fmean(values) for label, values in right.items()}
