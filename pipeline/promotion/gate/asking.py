"""Whether a person is asked before a model that passes every rule goes live (docs/adr/0027)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import wording
from pipeline.promotion.gate.against_live import judged
from pipeline.promotion.gate.evidence import Evidence
from pipeline.promotion.gate.rule import Rule, figure
from pipeline.settings import Gate

ALWAYS, NEVER, BORDERLINE = "always", "never", "borderline"
GAINS = {"gain over live", "gain with confidence"}
FLOORS = {"accuracy floor", "balanced accuracy floor", "calibration"}


def approval(promote: bool, rules: Sequence[Rule], evidence: Evidence, settings: Gate) -> dict[str, Any]:
    """`{"required", "why"}`. A refusal asks nobody: no answer could make it a promotion."""
    if not promote:
        return {"required": False, "why": "The gate refuses; there is nothing to approve."}
    if settings.approval == NEVER:
        return {"required": False, "why": "gate.approval is never."}
    found = list(doubts(rules, evidence, settings))
    if settings.approval == ALWAYS:
        return {"required": True, "why": " ".join(["gate.approval is always.", *found])}
    return {"required": bool(found), "why": " ".join(found) or "No figure is borderline."}


def doubts(rules: Sequence[Rule], evidence: Evidence, settings: Gate) -> Iterator[str]:
    """What a reviewer would want to see of a candidate that passes, a sentence each.

    `Rule.borderline` is no guide for the gain: `min_gain` lies just below zero and a retrained model differs little
    from the live one, so that its bar is within most intervals. What counts there is whether a single image decides.
    """
    if near := [rule.rule for rule in rules if rule.borderline and rule.rule in FLOORS]:
        yield f"Other held-out images could have failed it: {', '.join(near)}."
    compared = judged(evidence)
    images = figure(compared, "images") or 0
    if close := [rule for rule in rules if rule.rule in GAINS and images and _within(rule, 1 / images)]:
        found = wording.some([f"{rule.rule} ({rule.value:+.3f}, bar {rule.threshold:+.3f})" for rule in close])
        yield f"One more wrong answer among {images} could have refused it: {found}."
    high = figure(compared, "difference_high")
    if high is not None and high < 0:
        yield f"It is worse than the live model beyond doubt (at best {high:+.3f}), within what is allowed."
    classes = {f"{label!r}": row for label, row in (evidence.compared.get("per_class") or {}).items()}
    slices = {
        f"{part['by']} {part['value']!r}": part
        for part in evidence.metrics.get("slices") or []
        if part["by"] != "label" and part.get("compared")
    }
    for rows, tolerance, what in (
        (classes, settings.max_class_loss, "class"),
        (slices, settings.max_slice_loss, "slice"),
    ):
        if lost := list(_lost(rows, tolerance)):
            yield (
                f"Looked at by itself, a {what} has lost more than {tolerance:.3f} beyond doubt: {wording.some(lost)}."
            )
    bar = settings.min_new_class_recall
    per_class = evidence.section("test").get("per_class") or {}
    recalls = {label: figure(per_class.get(label), "recall") for label in evidence.compared.get("new_classes") or []}
    if weak := [label for label, recall in recalls.items() if recall is not None and recall < bar]:
        yield f"New classes are recalled below {bar:.3f}: {wording.names(weak)}."


def _within(rule: Rule, step: float) -> bool:
    if isinstance(rule.value, str | None) or isinstance(rule.threshold, str):
        return False
    return rule.value - rule.threshold < step


def _lost(rows: Mapping[str, Mapping[str, Any]], tolerance: float) -> Iterator[str]:
    """By the interval of each alone; the gate refuses by that of all together, which is wider."""
    for name, row in rows.items():
        high = figure(row, "difference_high")
        if high is not None and high < -tolerance:
            yield f"{name} (at best {high:+.3f})"
