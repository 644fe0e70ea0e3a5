"""New images unlike those that the live model learned from."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.diagnosis.cause import Cause, ramp
from pipeline.diagnosis.compared import compare
from pipeline.diagnosis.facts import Facts

HARMLESS = 0.2  # weight of a drift that no lower accuracy on the newest batch confirms


def find(facts: Facts) -> Iterator[Cause]:
    """Score: ramp of the largest distance, 0.1 to 0.5, x (0.2, or up to 1 as the newest batch is recognised worse than
    the others, 0 to 0.2, beyond chance)."""
    if not facts.drifted:
        return
    worst = sorted(facts.drifted, key=lambda name: (-facts.drifted[name], name))
    newest = max(answer.batch for answer in facts.answers)
    new = [answer for answer in facts.answers if answer.batch == newest]
    shares = compare([answer for answer in facts.answers if answer.batch != newest], new)
    evidence = [
        "New images differ in " + ", ".join(f"{name} (distance {facts.drifted[name]:.2f})" for name in worst) + "."
    ]
    weight = HARMLESS
    if shares is not None:
        evidence.append(
            f"Of the {shares.images[1]} images of batch {newest} {shares.second:.0%} are classified right, of the "
            f"{shares.images[0]} others {shares.first:.0%}."
        )
        if shares.beyond_chance:
            weight = max(HARMLESS, ramp(shares.drop, 0, 0.2))
    yield Cause(
        "drift",
        weight * ramp(facts.drifted[worst[0]], 0.1, 0.5),
        tuple(evidence),
        "Look at the new images: mend a changed camera or crop at its source; if the world has changed, collect more.",
        {},
    )
