"""When a person is asked. Base figures: a gain of 0.03, no class lost (figures.py)."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.promotion.gate.deciding import decide
from pipeline.settings import Gate
from tests.pipeline.promotion.gate.figures import FIRST, SETTINGS, changed, evidence, metrics


def asks(policy: str, found: Any = None, **settings: Any) -> dict[str, Any]:
    chosen = SETTINGS.model_copy(
        update={"approval": policy, "min_accuracy": 0.5, "min_balanced_accuracy": 0.5} | settings
    )
    decision = decide(found or evidence(), chosen)
    assert decision.as_json()["approval"] == decision.approval
    return dict(decision.approval)


def test_always_and_never_do_as_they_say() -> None:
    assert asks("always") == {"required": True, "why": "gate.approval is always."}
    assert asks("never")["required"] is False
    assert asks("never", with_live("difference", -0.005))["required"] is False
    assert "One more wrong answer" in asks("always", with_live("difference", -0.005))["why"]


@pytest.mark.parametrize("policy", ["always", "never", "borderline"])
def test_a_refusal_asks_nobody(policy: str) -> None:
    approval = asks(policy, with_live("difference", -0.4))
    assert approval["required"] is False
    assert "refuses" in approval["why"]


def with_live(path: str, value: object) -> Any:
    return evidence(metrics=changed(metrics(), f"live/{path}", value))


def test_an_ordinary_retraining_is_not_asked_about_though_the_bar_of_the_gain_is_within_its_interval() -> None:
    found = with_live("difference_low", -0.03)
    decision = decide(found, asking("borderline"))
    assert decision.borderline
    assert [rule.rule for rule in decision.rules if rule.borderline] == ["gain over live"]
    assert asks("borderline", found) == {"required": False, "why": "No figure is borderline."}
    assert asks("borderline", evidence(FIRST))["required"] is False


def asking(policy: str) -> Gate:
    return SETTINGS.model_copy(update={"approval": policy, "min_accuracy": 0.5, "min_balanced_accuracy": 0.5})


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        # 55 images: one is 0.018.
        ("live/difference", 0.008, "One more wrong answer among 55 could have refused it: gain over live (+0.008"),
        ("live/difference_low", -0.032, "could have refused it: gain with confidence (-0.032, bar -0.050)"),
        ("live/difference_high", -0.001, "worse than the live model beyond doubt (at best -0.001)"),
        (
            "live/per_class/dog/difference_high",
            -0.101,
            "a class has lost more than 0.100 beyond doubt: 'dog' (at best -0.101)",
        ),
        ("slices/1/difference_high", -0.201, "a slice has lost more than 0.200 beyond doubt: brightness 'dark'"),
        ("test/accuracy_low", 0.49, "could have failed it: accuracy floor"),
        ("test/calibration_error_high", 0.11, "could have failed it: calibration"),
    ],
)
def test_each_doubt_is_named(path: str, value: float, why: str) -> None:
    approval = asks("borderline", evidence(metrics=changed(metrics(), path, value)))
    assert approval["required"] is True
    assert why in approval["why"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("live/difference", 0.009),
        ("live/difference_low", -0.031),
        ("live/difference_high", 0.0),
        ("live/per_class/dog/difference_high", -0.1),
        ("slices/1/difference_high", -0.2),
        ("slices/0/difference_high", -0.9),  # of a label: left to the classes
        ("test/accuracy_low", 0.51),
        ("test/calibration_error_high", 0.09),
    ],
)
def test_a_figure_at_its_bar_is_no_doubt(path: str, value: float) -> None:
    assert asks("borderline", evidence(metrics=changed(metrics(), path, value)))["required"] is False


def test_a_new_class_that_is_recalled_poorly_is_asked_about() -> None:
    def of(recall: float) -> dict[str, Any]:
        found = changed(metrics(), "live/new_classes", ["dog"])
        found = changed(found, "live/known", {"images": 27, "classes": 1, "difference": 0.03, "difference_low": 0.0})
        return asks("borderline", evidence(metrics=changed(found, "test/per_class/dog/recall", recall)))

    assert of(0.24)["required"] is True
    assert "New classes are recalled below 0.250: 'dog'" in of(0.24)["why"]
    assert of(0.25)["required"] is False
