"""Rules on the candidate alone: its data, its figures on held-out images and on folds. A first model has no others."""

from __future__ import annotations

from pipeline.promotion.gate.evidence import Evidence
from pipeline.promotion.gate.rule import Rule, at_least, at_most, figure, no_figure
from pipeline.settings import Gate


def data_verdict(evidence: Evidence, settings: Gate) -> Rule:
    verdict = evidence.verdict.get("verdict")
    passed = verdict in {"pass", "warn"}
    return Rule("data verdict", passed, verdict, "pass or warn", f"The data validation says {verdict}.")


def leakage(evidence: Evidence, settings: Gate) -> Rule:
    found = evidence.section("leakage")
    rule = at_most(
        "leakage",
        figure(found, "images"),
        settings.max_leaked_images,
        "{value} test images have a near duplicate, or one of their group, among those learned from; {bar} may.",
    )
    if not rule.passed and found.get("examples"):
        test, training = found["examples"][0][:2]
        return Rule(
            rule.rule, False, rule.value, rule.threshold, f"{rule.explanation} One is {test!r}, like {training!r}."
        )
    return rule


def test_images(evidence: Evidence, settings: Gate) -> Rule:
    return at_least(
        "test images",
        figure(evidence.section("test"), "images"),
        settings.min_test_images,
        "{value} images are held out; {bar} are asked for.",
    )


def accuracy_floor(evidence: Evidence, settings: Gate) -> Rule:
    return _floor(evidence, "accuracy", settings.min_accuracy)


def balanced_accuracy_floor(evidence: Evidence, settings: Gate) -> Rule:
    return _floor(evidence, "balanced_accuracy", settings.min_balanced_accuracy)


def _floor(evidence: Evidence, name: str, bar: float) -> Rule:
    test, words = evidence.section("test"), name.replace("_", " ")
    return at_least(
        f"{words} floor",
        figure(test, name),
        bar,
        f"Test {words} is {{value:.3f}}; the floor is {{bar:.3f}}.",
        low=figure(test, f"{name}_low"),
        high=figure(test, f"{name}_high"),
    )


def better_than_guessing(evidence: Evidence, settings: Gate) -> Rule:
    test = evidence.section("test")
    classes = sum(1 for row in (test.get("per_class") or {}).values() if row.get("support"))
    return at_least(
        "better than guessing",
        figure(test, "balanced_accuracy_low"),
        1 / max(1, classes),
        "Test balanced accuracy is at least {value:.3f} (low end of its interval); guessing gives {bar:.3f}.",
    )


def calibration(evidence: Evidence, settings: Gate) -> Rule:
    """Few images alone make an error: one that a perfectly calibrated model would often exceed is none."""
    test, found = evidence.section("test"), evidence.section("calibration")
    noise = figure(found, "noise")
    bar = max(settings.max_calibration_error, noise or 0.0)
    explained = " (what so few images explain)" if bar > settings.max_calibration_error else ""
    return at_most(
        "calibration",
        figure(found, "error"),
        bar,
        f"Confidence and accuracy differ by {{value:.3f}} on average; {{bar:.3f}}{explained} is allowed.",
        low=figure(test, "calibration_error_low"),
        high=figure(test, "calibration_error_high"),
    )


def fold_spread(evidence: Evidence, settings: Gate) -> Rule:
    folds = evidence.section("cross_validation").get("folds") or []
    scores = [figure(fold, "balanced_accuracy") for fold in folds]
    known = [score for score in scores if score is not None]
    if len(known) < max(1, len(scores)):
        return no_figure("fold spread", settings.max_fold_spread)
    return at_most(
        "fold spread",
        max(known) - min(known),
        settings.max_fold_spread,
        "The best and the worst fold differ by {value:.3f} in balanced accuracy; {bar:.3f} is allowed.",
    )


RULES = (
    data_verdict,
    leakage,
    test_images,
    accuracy_floor,
    balanced_accuracy_floor,
    better_than_guessing,
    calibration,
    fold_spread,
)
