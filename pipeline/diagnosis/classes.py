"""Classes that are recognised badly, pairs that are taken for each other, and labels that look wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from scipy import stats

from pipeline.diagnosis.cause import Cause, need, ramp
from pipeline.diagnosis.facts import Facts

NAMED = 5  # classes, pairs or images in one sentence
SURE = 0.95  # confidence of a wrong answer that speaks against the label


def find(facts: Facts) -> Iterator[Cause]:
    yield from _weak(facts)
    yield from _confused(facts)
    yield from _labels(facts)


def _weak(facts: Facts) -> Iterator[Cause]:
    """Score: the probability that the recall of the class most surely weak is below diagnose.weak_recall, given its
    answers and Jeffreys' prior (a class of three images is never surely weak)."""
    limit = facts.thresholds.weak_recall
    images = Counter(answer.label for answer in facts.answers)
    right = Counter(answer.label for answer in facts.answers if answer.right)
    weak = {label: right[label] / count for label, count in images.items() if right[label] / count < limit}
    if not weak:
        return
    certainty = {
        label: float(stats.beta(right[label] + 0.5, images[label] - right[label] + 0.5).cdf(limit)) for label in weak
    }
    named = sorted(weak, key=lambda label: (-certainty[label], label))
    yield Cause(
        "weak classes",
        max(certainty.values()),
        (
            f"{len(weak)} of {len(images)} classes are recalled below {limit:g}: "
            + ", ".join(f"{label} {weak[label]:.0%} of {images[label]}" for label in named[:NAMED])
            + (f" and {len(named) - NAMED} more." if len(named) > NAMED else "."),
        ),
        f"Look at the mistakes of {named[0]} in the report: add images like them, or merge classes that nobody can "
        "tell apart.",
        facts.weigh,
    )


def _confused(facts: Facts) -> Iterator[Cause]:
    """Score: need x ramp of the worst pair's share of all mistakes, from what it would be if all pairs were alike to
    half-way between that and all. Needs three classes: of two, every mistake confuses the pair."""
    labels = {answer.label for answer in facts.answers}
    mistakes = [answer for answer in facts.answers if not answer.right]
    if len(labels) < 3 or not mistakes:
        return
    pairs = Counter((min(a.label, a.predicted), max(a.label, a.predicted)) for a in mistakes)
    even = 2 / (len(labels) * (len(labels) - 1))
    (one, other), count = max(pairs.items(), key=lambda item: (item[1], item[0]))
    if count < 3:
        return
    listed = sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:NAMED]
    yield Cause(
        "confused classes",
        need(facts) * ramp(count / len(mistakes), even, (1 + even) / 2),
        (
            f"{count} of {len(mistakes)} mistakes are between {one} and {other}.",
            "Most confused: " + ", ".join(f"{a} / {b} {pairs[a, b]}" for a, b in listed) + ".",
        ),
        f"Check whether {one} and {other} can be told apart by eye at the input size, and whether their labels are "
        "consistent.",
        {},
    )


def _labels(facts: Facts) -> Iterator[Cause]:
    """Score: ramp of the share of all images that a model which never saw them contradicts with 95 % confidence or
    more, from 0.5 % to 5 %."""
    sure = sorted((a for a in facts.answers if not a.right and a.confidence >= SURE), key=lambda a: -a.confidence)
    if not sure:
        return
    yield Cause(
        "wrong labels",
        ramp(len(sure) / len(facts.answers), 0.005, 0.05),
        (
            f"{len(sure)} of {len(facts.answers)} images are contradicted with {SURE:.0%} confidence or more.",
            "Look at: " + ", ".join(f"{a.uri} ({a.label}, answer {a.predicted})" for a in sure[:NAMED]) + ".",
        ),
        "Look at these images and move those with a wrong label to the folder of their class.",
        {},
    )
