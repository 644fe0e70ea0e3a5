"""What does not refuse a candidate, and a person should know."""

from __future__ import annotations

from pipeline import wording
from pipeline.promotion.gate.against_live import dropped
from pipeline.promotion.gate.evidence import Evidence
from pipeline.promotion.gate.rule import Rule, figure
from pipeline.settings import Gate

FEW_OF_A_CLASS = 10  # 9 of 10 right is a recall of 0.60 to 0.98 (Wilson)
FEW_COMPARED = 50  # one image is 2 % of them


def warnings(evidence: Evidence, rules: list[Rule], settings: Gate) -> list[str]:
    """A sentence each."""
    found = [
        _worn(evidence, settings),
        _few_of_a_class(evidence),
        _few_compared(evidence),
        _container(evidence),
        _folds(evidence),
        _dropped(evidence, settings),
        _borderline(rules),
    ]
    return [sentence for sentence in found if sentence is not None]


def _worn(evidence: Evidence, settings: Gate) -> str | None:
    uses = evidence.uses
    if uses.median is None or uses.median < settings.max_test_uses:
        return None
    return (
        f"The held-out images have served {uses.median:g} earlier decisions (median; {uses.unused} of {uses.images} "
        "none): what passes has been chosen by them, so their figures are too good by now. Add new images, or draw the "
        "splits anew with another shard.salt."
    )


def _few_of_a_class(evidence: Evidence) -> str | None:
    rows = evidence.section("test").get("per_class") or {}
    few = {label: row["support"] for label, row in rows.items() if (row.get("support") or 0) < FEW_OF_A_CLASS}
    if not few:
        return None
    named = wording.some(
        [f"{label!r} {few[label] or 0}" for label in sorted(few, key=lambda label: (few[label], label))]
    )
    return f"Fewer than {FEW_OF_A_CLASS} held-out images tell little about a class: {named}."


def _few_compared(evidence: Evidence) -> str | None:
    images = figure(evidence.compared, "images")
    if images is None or not 0 < images < FEW_COMPARED:
        return None
    excluded = figure(evidence.compared, "excluded") or 0
    return (
        f"Candidate and live model are compared on {images:.0f} images only"
        + (f"; the live model was trained on {excluded:.0f} of the held-out ones" if excluded else "")
        + "."
    )


def _container(evidence: Evidence) -> str | None:
    found = evidence.serving.get("container") or {}
    if found.get("status") != "skipped":
        return None
    return f"TensorFlow Serving's container was not tried: {found.get('reason')}"


def _folds(evidence: Evidence) -> str | None:
    groups = figure(evidence.section("leakage"), "folds")
    if not groups:
        return None
    words = wording.count(int(groups), "group of near duplicates is", "groups of near duplicates are")
    return f"{words} spread over several folds, whose figures are too good therefore."


def _dropped(evidence: Evidence, settings: Gate) -> str | None:
    lost = dropped(evidence)
    if not lost or not settings.allow_dropped_classes or evidence.live["version"] is None:
        return None
    return f"Images of {wording.names(lost)} will be given other classes from now on."


def _borderline(rules: list[Rule]) -> str | None:
    near = [rule.rule for rule in rules if rule.borderline]
    if not near:
        return None
    return f"Other held-out images could have decided otherwise, the bar lies within the interval: {', '.join(near)}."
