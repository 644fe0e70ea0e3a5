"""How often `gate.approval: borderline` asks a person, of candidates that pass the rules against the live model.

    python benchmarks/asking.py [COMPARISONS]

Both models are right on an image by a common and an own part of chance, so that they agree as often as two trainings
on nearly the same data do. "bar within" is what asking at any rule's `borderline` would have asked.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pipeline.evaluation.comparing import compare
from pipeline.evaluation.intervals import Resampling
from pipeline.promotion.gate import against_live
from pipeline.promotion.gate.asking import doubts
from pipeline.promotion.gate.evidence import Evidence
from pipeline.promotion.gate.uses import Uses
from pipeline.settings import load

AGREEMENT = 0.8  # share of images on which one coin decides for both models
# (classes, held-out images of each, accuracy of the live model, what the candidate adds to it, classes that lose 0.4)
CASES = [
    (10, 15, 0.95, 0.0, 0),
    (10, 30, 0.95, 0.0, 0),
    (10, 100, 0.95, 0.0, 0),
    (10, 100, 0.85, 0.0, 0),
    (10, 30, 0.9, 0.02, 0),
    (10, 100, 0.9, 0.02, 0),
    (100, 15, 0.9, 0.02, 0),
    (10, 30, 0.9, -0.02, 0),
    (10, 30, 0.9, 0.04, 1),
    (10, 100, 0.9, 0.04, 1),
]


def main() -> None:
    comparisons = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    settings = load(Path(__file__).parents[1] / "params.yaml").gate
    print("classes  images each  live   gain  lost  pass  of these: bar within   asked  one image  class lost")
    for number, case in enumerate(CASES):
        rng = np.random.default_rng(number)
        passed = within = asked = worse = lost = 0
        for _ in range(comparisons):
            evidence = draw(rng, *case)
            rules = [rule for make in against_live.RULES if (rule := make(evidence, settings)) is not None]
            if not all(rule.passed for rule in rules):
                continue
            passed += 1
            within += any(rule.borderline for rule in rules)
            found = list(doubts(rules, evidence, settings))
            asked += bool(found)
            worse += any("One more wrong" in sentence for sentence in found)
            lost += any("has lost" in sentence for sentence in found)
        shares = [f"{count / max(1, passed):>6.0%}" for count in (within, asked, worse, lost)]
        classes, images, accuracy, gain, falling = case
        print(
            f"{classes:>7}  {images:>11}  {accuracy:.2f}  {gain:+.2f}  {falling:>4}  {passed / comparisons:>4.0%}"
            f"  {shares[0]:>21}  {shares[1]:>6}  {shares[2]:>6}  {shares[3]:>10}",
            flush=True,
        )


def draw(rng: np.random.Generator, classes: int, images: int, live: float, gain: float, falling: int) -> Evidence:
    labels = np.repeat(np.arange(classes), images)
    share = np.full(labels.shape, live + gain)
    share[labels < falling] = live - 0.4
    own = [rng.random(labels.shape) for _ in range(2)]
    common = rng.random(labels.shape)
    alike = rng.random(labels.shape) < AGREEMENT
    ours, theirs = (np.where(alike, common, coins) for coins in own)
    names = [f"class {number:03d}" for number in range(classes)]

    def answers(right: np.ndarray) -> list[str]:
        return [names[label if good else (label + 1) % classes] for label, good in zip(labels, right, strict=True)]

    compared = compare(
        labels,
        answers(ours < share),
        answers(theirs < live),
        np.arange(len(labels)),
        classes=names,
        live_classes=names,
        how=Resampling(resamples=500, confidence=0.95, seed=int(rng.integers(1 << 30))),
    )
    known = frozenset(names)
    return Evidence({"live": compared, "slices": []}, {}, {}, {"version": 1}, "", known, known, Uses(0, 0, 0))


if __name__ == "__main__":
    main()
