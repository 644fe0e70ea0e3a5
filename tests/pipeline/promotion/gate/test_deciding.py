from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.promotion.gate.deciding import Decision, decide
from pipeline.promotion.gate.evidence import Evidence
from pipeline.promotion.gate.uses import Uses
from pipeline.settings import Gate, code_root, load
from tests.pipeline.promotion.gate.figures import (
    FIRST,
    MISSING,
    SECOND,
    SETTINGS,
    changed,
    evidence,
    metrics,
    serving,
)


def failed(found: Evidence, settings: Gate = SETTINGS) -> list[str]:
    decision = decide(found, settings)
    names = [rule.rule for rule in decision.rules if not rule.passed]
    assert decision.promote == (not names)
    assert decision.summary.startswith("Promote" if decision.promote else "Refused")
    return names


def with_metrics(path: str, value: object) -> Evidence:
    return evidence(metrics=changed(metrics(), path, value))


def with_serving(path: str, value: object) -> Evidence:
    return evidence(serving=changed(serving(), path, value))


def rule_of(decision: Decision, name: str) -> Any:
    [rule] = [rule for rule in decision.rules if rule.rule == name]
    return rule


def test_good_figures_pass_with_and_without_a_live_model() -> None:
    assert failed(evidence()) == []
    assert failed(evidence(FIRST, verdict={"verdict": "warn"})) == []
    names = [rule.rule for rule in decide(evidence(FIRST), SETTINGS).rules]
    assert not any("live" in name or "lost" in name for name in names)
    assert names[0] == "data verdict"


@pytest.mark.parametrize(
    ("path", "at_the_bar", "beyond", "rule"),
    [
        ("test/images", 50, 49, "test images"),
        ("test/accuracy", 0.7, 0.699, "accuracy floor"),
        ("test/balanced_accuracy", 0.6, 0.599, "balanced accuracy floor"),
        ("test/balanced_accuracy_low", 0.5, 0.499, "better than guessing"),
        ("calibration/error", 0.1, 0.101, "calibration"),
        ("leakage/images", 0, 1, "leakage"),
        ("cross_validation/folds/0/balanced_accuracy", 0.8 - 0.2, 0.599, "fold spread"),
        ("live/difference", 0.98 - 0.99, -0.011, "gain over live"),  # -0.010000000000000009
        ("live/difference_low", 0.9 - 0.95, -0.051, "gain with confidence"),
        ("live/per_class/dog/difference_high_all", 0.8 - 0.9, -0.101, "no class lost"),
        ("slices/1/difference_high_all", 0.7 - 0.9, -0.201, "no slice lost"),
        ("live/images", 1, 0, "comparison with live"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" not in value else None,
)
def test_each_rule_on_both_sides_of_its_bar(path: str, at_the_bar: float, beyond: float, rule: str) -> None:
    assert failed(with_metrics(path, at_the_bar)) == []
    assert failed(with_metrics(path, beyond)) == [rule]


@pytest.mark.parametrize(
    ("path", "at_the_bar", "beyond", "rule"),
    [
        ("fresh_process/max_difference", 1e-4, 1.1e-4, "fresh process"),
        ("fresh_process/bytes_difference", 1e-4, 1.1e-4, "fresh process"),
        ("fresh_process/same_answers", True, False, "fresh process"),
        ("fresh_process/same_classes", True, False, "fresh process"),
        ("fresh_process/status", "passed", "failed", "fresh process"),
        ("model_digest", "d", "another", "fresh process"),
        ("container/max_difference", 1e-4, 1.1e-4, "TensorFlow Serving"),
        ("container/status", "skipped", "failed", "TensorFlow Serving"),
        ("input_contract/passed", True, False, "input contract"),
        ("latency/cpu/1/p99_ms", 50.0, 50.1, "latency"),
        ("size/saved_model_bytes", 20_000_000, 20_000_001, "size"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else None,
)
def test_each_rule_on_what_serving_showed(path: str, at_the_bar: object, beyond: object, rule: str) -> None:
    assert failed(with_serving(path, at_the_bar)) == []
    assert failed(with_serving(path, beyond)) == [rule]


@pytest.mark.parametrize(
    "missing",
    [None, float("nan"), float("inf"), "0.9", True, MISSING],
    ids=["null", "nan", "infinity", "text", "true", "absent"],
)
@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("test/images", "test images"),
        ("test/accuracy", "accuracy floor"),
        ("test/balanced_accuracy", "balanced accuracy floor"),
        ("test/balanced_accuracy_low", "better than guessing"),
        ("calibration/error", "calibration"),
        ("leakage/images", "leakage"),
        ("cross_validation/folds/1/balanced_accuracy", "fold spread"),
        ("live/difference", "gain over live"),
        ("live/difference_low", "gain with confidence"),
        ("live/per_class/cat/difference_high_all", "no class lost"),
        ("slices/1/difference_high_all", "no slice lost"),
    ],
)
def test_a_figure_that_is_missing_fails_its_rule(path: str, rule: str, missing: object) -> None:
    decision = decide(with_metrics(path, missing), SETTINGS)
    [broken] = [rule for rule in decision.rules if not rule.passed]
    assert (broken.rule, broken.value) == (rule, None)
    assert "no figure" in broken.explanation
    json.dumps(decision.as_json(), allow_nan=False)


KNOWN = {"classes": 2, "images": 55, "difference": 0.03, "difference_low": -0.005, "difference_high": 0.07}
SECTIONS = {
    "fresh_process": "fresh process",
    "fresh_process/status": "fresh process",
    "container": "TensorFlow Serving",
    "input_contract": "input contract",
    "input_contract/passed": "input contract",
    "latency/cpu": "latency",
}
NUMBERS = {
    "fresh_process/max_difference": "fresh process",
    "fresh_process/bytes_difference": "fresh process",
    "fresh_process/tolerance": "fresh process",
    "container/max_difference": "TensorFlow Serving",
    "latency/cpu/1/p99_ms": "latency",
    "size/saved_model_bytes": "size",
}
ABSENT = [
    *((path, missing) for path in SECTIONS for missing in (None, MISSING)),
    *((path, missing) for path in NUMBERS for missing in (None, float("nan"), MISSING)),
]


@pytest.mark.parametrize(("path", "missing"), ABSENT)
def test_a_figure_of_serving_that_is_missing_fails_its_rule(path: str, missing: object) -> None:
    assert failed(with_serving(path, missing)) == [(SECTIONS | NUMBERS)[path]]


def test_nothing_passes_on_empty_files() -> None:
    """What a run of another build leaves; no rule may take silence for consent, nor stop the stage."""
    empty = evidence(metrics={}, verdict={}, serving={})
    decision = decide(empty, SETTINGS)
    assert not decision.promote
    assert all(not rule.passed for rule in decision.rules)
    live = decide(evidence(metrics=metrics() | {"live": None}), SETTINGS)
    assert [rule.rule for rule in live.rules if not rule.passed] == ["comparison with live", "dropped classes"]


@pytest.mark.parametrize("section", ["leakage", "slices", "calibration", "cross_validation"])
def test_a_section_that_an_older_evaluate_does_not_write_refuses(section: str) -> None:
    assert len(failed(with_metrics(section, MISSING))) == 1


def test_the_defaults_let_a_tie_through_and_no_loss() -> None:
    """0.989 against 0.992 on 269 images is one image; with fresher data, that is a tie."""
    shipped = load(code_root() / "params.yaml").gate
    tie = changed(changed(metrics(), "live/difference", 0.989 - 0.992), "live/difference_low", -0.02)
    assert failed(evidence(metrics=tie), shipped) == []
    worse = changed(changed(metrics(), "live/difference", -0.02), "live/difference_low", -0.04)
    assert failed(evidence(metrics=worse), shipped) == ["gain over live"]
    unsure = changed(metrics(), "live/difference_low", -0.06)
    assert failed(evidence(metrics=unsure), shipped) == ["gain with confidence"]
    strict = shipped.model_copy(update={"min_gain_low": 0.0})
    assert failed(evidence(metrics=tie), strict) == ["gain with confidence"]


def test_budgets_that_are_not_set_are_no_rules() -> None:
    free = SETTINGS.model_copy(update={"max_latency_ms": None, "max_size_mb": None})
    names = {rule.rule for rule in decide(evidence(), free).rules}
    assert not names & {"latency", "size"}


def test_blocked_or_unknown_data_is_never_promoted() -> None:
    for verdict in ("block", "maybe", None):
        assert failed(evidence(FIRST, verdict={"verdict": verdict})) == ["data verdict"]


def test_a_calibration_error_that_few_images_explain_does_not_refuse() -> None:
    noisy = changed(changed(metrics(), "calibration/error", 0.2), "calibration/noise", 0.2)
    assert failed(evidence(metrics=noisy)) == []
    assert rule_of(decide(evidence(metrics=noisy), SETTINGS), "calibration").threshold == 0.2
    noisier = changed(noisy, "calibration/error", 0.21)
    assert failed(evidence(metrics=noisier)) == ["calibration"]
    unknown = changed(changed(metrics(), "calibration/error", 0.2), "calibration/noise", None)
    assert failed(evidence(metrics=unknown)) == ["calibration"]


def test_a_leak_is_named() -> None:
    leaky = changed(
        metrics(), "leakage", {"groups": 1, "images": 2, "folds": 0, "examples": [["t.png", "l\x1b[31m.png"]]}
    )
    assert "'t.png', like 'l\\x1b[31m.png'" in rule_of(decide(evidence(metrics=leaky), SETTINGS), "leakage").explanation


@pytest.mark.parametrize("value", [None, float("nan"), MISSING], ids=["null", "nan", "missing"])
def test_a_class_without_comparable_images_does_not_decide(value: object) -> None:
    without = changed(metrics(), "live/per_class/cat/support", 0)
    assert failed(evidence(metrics=changed(without, "live/per_class/cat/difference_high_all", value))) == []


def test_one_class_that_is_lost_is_named_among_many() -> None:
    rows = {f"class {number}": metrics()["live"]["per_class"]["cat"] for number in range(100)}
    rows["class 7"] = rows["class 7"] | {"difference_high_all": -0.15}
    found = evidence(metrics=changed(metrics(), "live/per_class", rows), taught=frozenset(rows))
    found = evidence(metrics=found.metrics, taught=frozenset(rows), tested=frozenset(rows))
    lost = rule_of(decide(found, SETTINGS), "no class lost")
    assert (lost.passed, lost.value) == (False, -0.15)
    assert "'class 7' (at best -0.150)" in lost.explanation


def test_a_tiny_test_set_without_comparable_images_is_refused_in_words() -> None:
    tiny = changed(changed(metrics(), "test/images", 1), "live/images", 0)
    assert failed(evidence(metrics=tiny)) == ["test images", "comparison with live"]


class TestChangedClasses:
    def with_fox(self, recall_high: object, *, support: int = 20, live: int = 18) -> Evidence:
        found = changed(metrics(), "live/new_classes", ["fox"])
        found = changed(found, "test/per_class/fox", {"support": support, "recall_high": recall_high})
        row = {"support": live, "candidate_recall": 0.9, "live_recall": 0.0, "difference_high_all": 1.0}
        found = changed(found, "live/per_class/fox", row)
        found = changed(found, "live/known", KNOWN)
        found["live"] |= {"images": 73, "difference": 0.32, "difference_low": 0.25, "difference_high": 0.4}
        known = frozenset({"cat", "dog", "fox"})
        return evidence(metrics=found, taught=known, tested=known)

    @pytest.mark.parametrize(("recall_high", "rules"), [(0.25, []), (0.249, ["new classes"]), (None, ["new classes"])])
    def test_a_new_class_has_a_floor_of_its_own(self, recall_high: object, rules: list[str]) -> None:
        assert failed(self.with_fox(recall_high)) == rules

    def test_a_new_class_without_a_test_image_does_not_decide(self) -> None:
        assert failed(self.with_fox(None, support=0, live=0)) == []

    def test_a_new_class_does_not_make_up_for_what_the_known_ones_lose(self) -> None:
        """The live model gets every fox wrong, so the difference over all classes looks good whatever else happens."""
        found = self.with_fox(0.9)
        decision = decide(found, SETTINGS)
        gain, sure = (rule_of(decision, name) for name in ("gain over live", "gain with confidence"))
        assert (gain.value, sure.value) == (0.03, -0.005)
        assert "on the 2 classes that the live model knows is +0.030 against the live model (" in gain.explanation
        assert "McNemar" not in gain.explanation  # counts foxes
        assert "On these 55 images of the 2 classes that the live model knows" in sure.explanation
        assert "+0.030 against live version 4 on the same 55 images of classes that it knows, " in decision.summary
        for path, at_the_bar, beyond, rule in (
            ("live/known/difference", -0.01, -0.011, "gain over live"),
            ("live/known/difference_low", -0.05, -0.051, "gain with confidence"),
        ):
            for value, rules in ((at_the_bar, []), (beyond, [rule]), (None, [rule])):
                other = changed(dict(found.metrics), path, value)
                assert failed(evidence(metrics=other, taught=found.taught, tested=found.tested)) == rules

    def test_without_figures_of_the_known_classes_a_new_one_refuses(self) -> None:
        found = self.with_fox(0.9)
        older = changed(dict(found.metrics), "live/known", MISSING)
        rules = failed(evidence(metrics=older, taught=found.taught, tested=found.tested))
        assert rules == ["gain over live", "gain with confidence"]

    @pytest.mark.parametrize(
        "found",
        [
            evidence(metrics=changed(metrics(), "live/dropped_classes", ["ape"])),
            evidence(tested=frozenset({"cat", "dog", "ape"})),
            evidence(
                metrics=changed(
                    metrics(), "live/per_class/ape", {"support": 0, "difference_high_all": None, "live_recall": None}
                )
            ),
        ],
        ids=["left the list of classes", "only in the test set", "kept its place, has no image left"],
    )
    def test_a_class_that_the_candidate_has_not_learned_refuses_unless_allowed(self, found: Evidence) -> None:
        assert failed(found) == ["dropped classes"]
        assert "'ape'" in rule_of(decide(found, SETTINGS), "dropped classes").explanation
        allowed = SETTINGS.model_copy(update={"allow_dropped_classes": True})
        assert failed(found, allowed) == []
        assert any("'ape'" in warning for warning in decide(found, allowed).warnings)

    def test_a_dropped_class_refuses_even_if_no_image_can_be_compared(self) -> None:
        found = changed(changed(metrics(), "live/images", 0), "live/dropped_classes", ["ape"])
        assert failed(evidence(metrics=found)) == ["comparison with live", "dropped classes"]


class TestWarnings:
    def test_good_figures_raise_none(self) -> None:
        roomy = changed(metrics(), "live/difference_low", 0.0)
        assert decide(evidence(metrics=roomy), SETTINGS).warnings == ()

    @pytest.mark.parametrize(("uses", "warned"), [(2.5, False), (3, True), (40, True), (None, False)])
    def test_a_worn_test_set(self, uses: float | None, warned: bool) -> None:
        roomy = changed(metrics(), "live/difference_low", 0.0)
        decision = decide(evidence(metrics=roomy, uses=Uses(uses, 60, 12)), SETTINGS)
        assert decision.promote
        assert [f"{uses} earlier decisions" in warning for warning in decision.warnings] == [True] * warned

    def test_few_images(self) -> None:
        few = changed(changed(metrics(), "test/per_class/dog/support", 9), "live/images", 49)
        warnings = decide(evidence(metrics=few), SETTINGS).warnings
        assert any("'dog' 9" in warning for warning in warnings)
        assert any("49 images only; the live model was trained on 5" in warning for warning in warnings)

    def test_a_container_that_was_skipped_is_no_rule_but_said(self) -> None:
        found = with_serving("container", {"status": "skipped", "reason": "There is no Docker here."})
        decision = decide(found, SETTINGS)
        assert decision.promote
        assert "TensorFlow Serving" not in [rule.rule for rule in decision.rules]
        assert any("There is no Docker here." in warning for warning in decision.warnings)

    def test_folds_that_share_groups(self) -> None:
        warnings = decide(with_metrics("leakage/folds", 2), SETTINGS).warnings
        assert any(warning.startswith("2 groups") for warning in warnings)


@pytest.mark.parametrize(
    ("low", "high", "near"), [(0.6, 0.9, True), (0.71, 0.9, False), (0.7, 0.9, True), (None, 0.9, False)]
)
def test_a_bar_within_the_interval_is_borderline(low: float | None, high: float, near: bool) -> None:
    found = changed(changed(metrics(), "live/difference_low", 0.0), "test/accuracy_low", low)
    decision = decide(evidence(metrics=changed(found, "test/accuracy_high", high)), SETTINGS)
    assert (decision.promote, decision.borderline) == (True, near)
    assert rule_of(decision, "accuracy floor").borderline == near


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "test/accuracy",
                "test/balanced_accuracy",
                "live/difference",
                "live/difference_low",
                "live/per_class/dog/difference_high_all",
                "calibration/error",
            ]
        ),
        st.one_of(st.none(), st.floats(-1, 1), st.just(math.nan)),
    )
)
def test_whatever_the_figures_the_decision_is_json_and_repeats(changes: dict[str, float | None]) -> None:
    found = metrics()
    for path, value in changes.items():
        found = changed(found, path, value)
    decision = decide(evidence(metrics=found), SETTINGS)
    assert decision == decide(evidence(metrics=found), SETTINGS)
    assert decision.promote == all(rule.passed for rule in decision.rules)
    assert json.loads(json.dumps(decision.as_json(), allow_nan=False))["promote"] == decision.promote
    for rule in decision.rules:
        assert rule.explanation.endswith(".")
        assert "None" not in rule.explanation or rule.rule == "no slice lost" or rule.explanation.startswith("None of")


def test_promotion_says_what_was_gained() -> None:
    summary = decide(evidence(SECOND), SETTINGS).summary
    assert "+0.030 against live version 4 on the same 55 images" in summary
    gain = rule_of(decide(evidence(), SETTINGS), "gain over live").explanation
    assert "5 images only the candidate gets right, 3 only the live model (McNemar p 0.73)" in gain
