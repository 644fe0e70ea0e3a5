"""Rules on the exported model, as the stage `serve` has tried it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.promotion.gate.evidence import Evidence
from pipeline.promotion.gate.rule import Rule, at_most, figure, no_figure
from pipeline.settings import Gate


def input_contract(evidence: Evidence, settings: Gate) -> Rule:
    found = evidence.serving.get("input_contract") or {}
    if not isinstance(found.get("passed"), bool):
        return no_figure("input contract", "as the registry says")
    return Rule("input contract", found["passed"], found.get("scaling"), "as the registry says", str(found["detail"]))


def fresh_process(evidence: Evidence, settings: Gate) -> Rule:
    tried = evidence.serving.get("model_digest")
    if tried != evidence.model_digest:
        return no_figure("fresh process", "the same answers", "the stage serve has tried another model")
    found = evidence.serving.get("fresh_process") or {}
    differences = [figure(found, name) for name in ("max_difference", "bytes_difference")]
    words = "A fresh process answers {images} images from pixels and from files as the measured model does, within "
    rule = _same_answers("fresh process", found, differences, words.format(images=found.get("images")))
    if rule.passed and not (found.get("same_answers") is True and found.get("same_classes") is True):
        return Rule(rule.rule, False, rule.value, rule.threshold, "The served model names other classes.")
    return rule


def container(evidence: Evidence, settings: Gate) -> Rule | None:
    """None if it was not tried; `serve.container: required` makes that a failure."""
    found = evidence.serving.get("container") or {}
    if found.get("status") == "skipped":
        return None
    words = f"TensorFlow Serving ({found.get('image')}) answers as the measured model does, within "
    return _same_answers("TensorFlow Serving", found, [figure(found, "max_difference")], words)


def latency(evidence: Evidence, settings: Gate) -> Rule | None:
    """None without a budget."""
    if settings.max_latency_ms is None:
        return None
    return at_most(
        "latency",
        figure(evidence.serving, "latency", "cpu", "1", "p99_ms"),
        settings.max_latency_ms,
        "One image takes {value:.1f} ms on the CPU (99th percentile); the budget is {bar:.1f} ms.",
    )


def size(evidence: Evidence, settings: Gate) -> Rule | None:
    """None without a budget."""
    if settings.max_size_mb is None:
        return None
    stored = figure(evidence.serving, "size", "saved_model_bytes")
    return at_most(
        "size",
        None if stored is None else stored / 1e6,
        settings.max_size_mb,
        "The SavedModel has {value:.1f} MB; the budget is {bar:.1f} MB.",
    )


def _same_answers(rule: str, found: Mapping[str, Any], differences: list[float | None], words: str) -> Rule:
    tolerance = figure(found, "tolerance")
    bar = "the same answers" if tolerance is None else tolerance
    known = [difference for difference in differences if difference is not None]
    worst = max(known, default=None)
    if found.get("status") == "failed":
        return Rule(rule, False, worst, bar, f"The exported model failed: {found.get('reason')}")
    if found.get("status") != "passed" or tolerance is None or len(known) < len(differences):
        return no_figure(rule, bar)
    return at_most(rule, worst, tolerance, words + "{bar:g}; they differ by {value:.1g} at most.")


RULES = (input_contract, fresh_process, container, latency, size)
