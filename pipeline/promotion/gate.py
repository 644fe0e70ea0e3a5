"""Decides, from what has been measured, whether the candidate may go live. Measures nothing itself.

Every rule says what it looked at, the bar, and the reason in words. A figure that is missing or not finite
fails its rule: what could not be measured cannot speak for a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.settings import Gate


@dataclass(frozen=True)
class Rule:
    rule: str
    passed: bool
    value: float | str | None
    threshold: float | str
    explanation: str


def decide(
    metrics: Mapping[str, Any], verdict: Mapping[str, Any], live: Mapping[str, Any], settings: Gate
) -> tuple[bool, str, list[Rule]]:
    """Returns whether to promote, one sentence why, and every rule.

    Args:
        metrics: metrics/evaluate.json.
        verdict: reports/validation/verdict.json.
        live: live.json.
    """
    rules = [*_absolute(metrics, verdict, settings)]
    if live["version"] is not None:
        rules += _against_live(metrics["live"], settings)
    failed = [rule for rule in rules if not rule.passed]
    if failed:
        return False, "Refused: " + " ".join(rule.explanation for rule in failed), rules
    if live["version"] is None:
        summary = "Promote: the first model, and it passes every absolute floor."
    else:
        gain = metrics["live"]["difference"]
        summary = (
            f"Promote: balanced accuracy {gain:+.3f} against live version {live['version']} on the same "
            f"{metrics['live']['images']} images, and no class is clearly worse."
        )
    return True, summary, rules


def _absolute(metrics: Mapping[str, Any], verdict: Mapping[str, Any], settings: Gate) -> list[Rule]:
    test, folds = metrics["test"], metrics["cross_validation"]["folds"]
    scores = [fold["balanced_accuracy"] for fold in folds]
    spread = max(scores) - min(scores) if scores and all(map(_finite, scores)) else None
    chance = 1 / max(1, sum(1 for row in test["per_class"].values() if row["support"]))
    return [
        Rule(
            "data verdict",
            verdict["verdict"] != "block",
            verdict["verdict"],
            "pass or warn",
            f"The data validation says {verdict['verdict']}.",
        ),
        _at_least(
            "test images", test["images"], settings.min_test_images, "{value} images are held out; {bar} are asked for."
        ),
        _at_least(
            "accuracy floor",
            test["accuracy"],
            settings.min_accuracy,
            "Test accuracy is {value:.3f}; the floor is {bar:.3f}.",
        ),
        _at_least(
            "balanced accuracy floor",
            test["balanced_accuracy"],
            settings.min_balanced_accuracy,
            "Test balanced accuracy is {value:.3f}; the floor is {bar:.3f}.",
        ),
        _at_least(
            "better than guessing",
            test["balanced_accuracy_low"],
            chance,
            "Test balanced accuracy is at least {value:.3f} (low end of its interval); guessing gives {bar:.3f}.",
        ),
        _at_most(
            "fold spread",
            spread,
            settings.max_fold_spread,
            "The best and the worst fold differ by {value:.3f} in balanced accuracy; {bar:.3f} is allowed.",
        ),
    ]


def _against_live(live: Mapping[str, Any] | None, settings: Gate) -> list[Rule]:
    if live is None or not live["images"]:
        explanation = "No held-out image is new to the live model, so the two cannot be compared."
        return [Rule("comparison with live", False, 0, "at least 1 image", explanation)]
    worse = {
        label: row["difference_high"]
        for label, row in live["per_class"].items()
        if _finite(row["difference_high"]) and row["difference_high"] < -settings.max_class_loss
    }
    named = ", ".join(f"{label} (at best {bound:+.3f})" for label, bound in sorted(worse.items()))
    return [
        _at_least(
            "gain over live",
            live["difference"],
            settings.min_gain,
            "Balanced accuracy is {value:+.3f} against the live model; {bar:+.3f} is asked for.",
        ),
        _at_least(
            "not worse than live",
            live["difference_low"],
            -settings.max_loss,
            f"On these {live['images']} images the difference may be {{value:+.3f}} (low end of its interval); "
            "{bar:+.3f} is allowed. More held-out images narrow it.",
        ),
        Rule(
            "no class lost",
            not worse,
            min(worse.values(), default=0.0),
            -settings.max_class_loss,
            f"Recall has fallen beyond doubt for: {named}."
            if worse
            else "No class is recalled clearly worse than by the live model.",
        ),
    ]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _at_least(rule: str, value: float | None, bar: float, sentence: str) -> Rule:
    return _judged(rule, value, bar, sentence, lambda number: number >= bar)


def _at_most(rule: str, value: float | None, bar: float, sentence: str) -> Rule:
    return _judged(rule, value, bar, sentence, lambda number: number <= bar)


def _judged(rule: str, value: float | None, bar: float, sentence: str, passes: Callable[[float], bool]) -> Rule:
    if value is None or not math.isfinite(value):
        return Rule(rule, False, None, bar, f"There is no figure for the rule {rule!r}.")
    return Rule(rule, passes(value), value, bar, sentence.format(value=value, bar=bar))


def as_json(rules: list[Rule]) -> list[dict[str, Any]]:
    return [asdict(rule) for rule in rules]
