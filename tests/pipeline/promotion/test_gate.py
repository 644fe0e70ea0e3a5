from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from pipeline.promotion.gate import decide
from pipeline.settings import Gate, load

FIRST = {"version": None, "generation": 0, "path": None, "digest": None}
SECOND = {"version": 4, "generation": 6, "path": "somewhere", "digest": "0"}


@pytest.fixture
def gate() -> Gate:
    return load(Path(__file__).parents[3] / "params.yaml").gate.model_copy(
        update={
            "min_accuracy": 0.7,
            "min_balanced_accuracy": 0.6,
            "min_test_images": 50,
            "max_fold_spread": 0.2,
            "min_gain": 0.0,
            "max_loss": 0.02,
            "max_class_loss": 0.1,
        }
    )


@pytest.fixture
def metrics() -> dict[str, Any]:
    """Figures that pass every rule, each with some room."""
    return {
        "test": {
            "images": 60,
            "accuracy": 0.8,
            "balanced_accuracy": 0.75,
            "balanced_accuracy_low": 0.65,
            "per_class": {"cat": {"support": 30}, "dog": {"support": 30}},
        },
        "cross_validation": {"folds": [{"balanced_accuracy": 0.7}, {"balanced_accuracy": 0.8}]},
        "live": {
            "images": 55,
            "difference": 0.03,
            "difference_low": 0.0,
            "per_class": {"cat": {"difference_high": 0.1}, "dog": {"difference_high": -0.05}},
        },
    }


def change(metrics: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(metrics)
    *sections, last = path.split("/")
    section = changed
    for name in sections:
        section = section[int(name)] if isinstance(section, list) else section[name]
    section[last] = value
    return changed


def failed(metrics: dict[str, Any], gate: Gate, live: dict[str, Any], verdict: str = "pass") -> list[str]:
    promote, summary, rules = decide(metrics, {"verdict": verdict}, live, gate)
    names = [rule.rule for rule in rules if not rule.passed]
    assert promote == (not names)
    assert summary.startswith("Promote" if promote else "Refused")
    return names


def test_good_figures_pass_with_and_without_a_live_model(metrics: dict[str, Any], gate: Gate) -> None:
    assert failed(metrics, gate, SECOND) == []
    assert failed({**metrics, "live": None}, gate, FIRST, "warn") == []


@pytest.mark.parametrize(
    ("path", "at_the_bar", "beyond", "rule"),
    [
        ("test/images", 50, 49, "test images"),
        ("test/accuracy", 0.7, 0.699, "accuracy floor"),
        ("test/balanced_accuracy", 0.6, 0.599, "balanced accuracy floor"),
        ("test/balanced_accuracy_low", 0.5, 0.499, "better than guessing"),
        ("live/difference", 0.0, -0.001, "gain over live"),
        ("live/difference_low", -0.02, -0.021, "not worse than live"),
        ("live/per_class/dog/difference_high", -0.1, -0.101, "no class lost"),
        ("live/images", 1, 0, "comparison with live"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" not in value else None,
)
def test_each_rule_on_both_sides_of_its_bar(
    metrics: dict[str, Any], gate: Gate, path: str, at_the_bar: float, beyond: float, rule: str
) -> None:
    assert failed(change(metrics, path, at_the_bar), gate, SECOND) == []
    assert failed(change(metrics, path, beyond), gate, SECOND) == [rule]


def test_the_spread_of_the_folds_is_bounded(metrics: dict[str, Any], gate: Gate) -> None:
    wide = change(metrics, "cross_validation/folds", [{"balanced_accuracy": 0.5}, {"balanced_accuracy": 0.75}])
    assert failed(wide, gate, SECOND) == ["fold spread"]


@pytest.mark.parametrize("missing", [None, float("nan")], ids=["null", "nan"])
def test_a_figure_that_is_missing_fails(metrics: dict[str, Any], gate: Gate, missing: float | None) -> None:
    assert failed(change(metrics, "test/balanced_accuracy", missing), gate, SECOND) == ["balanced accuracy floor"]
    assert failed(change(metrics, "live/difference", missing), gate, SECOND) == ["gain over live"]
    no_folds = change(metrics, "cross_validation/folds", [{"balanced_accuracy": missing}])
    assert failed(no_folds, gate, FIRST) == ["fold spread"]


def test_blocked_data_is_never_promoted(metrics: dict[str, Any], gate: Gate) -> None:
    assert failed(metrics, gate, FIRST, "block") == ["data verdict"]


def test_a_class_without_comparable_images_does_not_decide(metrics: dict[str, Any], gate: Gate) -> None:
    assert failed(change(metrics, "live/per_class/cat/difference_high", None), gate, SECOND) == []
