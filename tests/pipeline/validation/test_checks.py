from __future__ import annotations

from typing import Any

import pytest

from pipeline.settings import Validate
from pipeline.validation import checks
from pipeline.validation.verdict import Finding

LIMITS = Validate(
    labels=None, min_classes=2, min_per_class=20, min_side=8, max_aspect_ratio=8, max_quarantine_share=0.2
)
BALANCED = {"cat": 30, "dog": 40}


def batch(accepted: int = 100, **quarantined: int) -> dict[str, Any]:
    reasons = {reason.replace("_", "-"): count for reason, count in quarantined.items()}
    return {"batch": "0002", "listed": 0, "known": 0, "accepted": accepted, "quarantined": reasons}


def run(
    classes: dict[str, int],
    *,
    folds: int = 3,
    batches: list[dict[str, Any]] | None = None,
    drift: list[dict[str, Any]] | None = None,
    live: dict[str, int] | None = None,
) -> list[Finding]:
    return checks.check(
        classes,
        ingest={"batches": [batch()] if batches is None else batches},
        profile={"drift": drift or [], "new_images": 50, "live_classes": live},
        limits=LIMITS,
        folds=folds,
    )


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_good_data_has_no_findings() -> None:
    assert run(BALANCED) == []
    assert run(BALANCED, live=BALANCED, batches=[]) == []


def test_one_class_is_one_finding_that_names_it() -> None:
    finding = only(run({"cat": 100}))

    assert (finding.check, finding.severity) == ("class-count", "block")
    assert finding.message == "found only the class 'cat', expected at least 2 classes"
    assert "one folder per class" in finding.fix


@pytest.mark.parametrize(
    ("classes", "message", "fix"),
    [
        pytest.param(
            {"cat": 40, "dog": 2},
            "class 'dog' has 2 images, fewer than the 3 folds",
            "add images of 'dog', or lower the folds with --set 'train.parts=[fold-0, fold-1, final]'",
            id="two-images",
        ),
        pytest.param(
            {"cat": 40, "dog": 1},
            "class 'dog' has 1 image, fewer than the 3 folds",
            "add images of 'dog'",
            id="one-image-leaves-no-folds-to-lower-to",
        ),
        pytest.param(
            {"cat": 40, "dog": 2, "eel": 1},
            "2 classes have too few images: 'eel' 1, 'dog' 2, fewer than the 3 folds",
            "add images of 'dog', 'eel'",
            id="several",
        ),
    ],
)
def test_fewer_images_than_folds_block(classes: dict[str, int], message: str, fix: str) -> None:
    finding = next(finding for finding in run(classes) if finding.severity == "block")

    assert (finding.check, finding.message, finding.fix) == ("class-size", message, fix)


def test_the_proposed_folds_are_valid_settings() -> None:
    from pathlib import Path

    from pipeline import settings

    params = settings.read_params(Path(__file__).parents[3] / "params.yaml")
    finding = next(finding for finding in run({"cat": 40, "dog": 3}, folds=5) if finding.severity == "block")
    override = finding.fix.split("'")[-2]

    assert settings.parse(settings.with_overrides(params, [override])).train.folds == 3


@pytest.mark.parametrize(("count", "checks_found"), [(3, ["class-size"]), (19, ["class-size"]), (20, [])], ids=str)
def test_few_images_warn(count: int, checks_found: list[str]) -> None:
    findings = run({"cat": 25, "dog": count})

    assert [finding.check for finding in findings] == checks_found
    assert all(finding.severity == "warn" for finding in findings)


@pytest.mark.parametrize(
    ("newest", "blocked"),
    [
        pytest.param(batch(80, damaged=20), False, id="at-the-limit"),
        pytest.param(batch(79, damaged=20, empty=1), True, id="above"),
        pytest.param(batch(0, damaged=1), True, id="nothing-usable"),
        pytest.param(batch(0), False, id="nothing-new"),
        pytest.param(batch(10, exact_duplicate=90), False, id="second-copies-lose-nothing"),
    ],
)
def test_quarantine_share_of_the_newest_batch(newest: dict[str, Any], blocked: bool) -> None:
    findings = run(BALANCED, batches=[batch(0, damaged=100), newest])

    assert [finding.check for finding in findings] == (["quarantine-share"] if blocked else [])


def test_quarantine_names_the_reasons() -> None:
    finding = only(run(BALANCED, batches=[batch(5, not_an_image=3, damaged=2)]))

    assert finding.message == (
        "5 of the 10 new images of batch 0002 cannot be used (damaged 2, not-an-image 3), "
        "more than validate.max_quarantine_share = 20%"
    )


@pytest.mark.parametrize(("large", "warned"), [(200, False), (201, True)], ids=str)
def test_imbalance(large: int, warned: bool) -> None:
    assert [finding.check for finding in run({"cat": large, "dog": 20})] == (["imbalance"] if warned else [])


def test_drift_names_the_worst_features_first() -> None:
    drift = [
        {"feature": "width", "distance": 0.3, "p_value": 0.0, "drifted": True},
        {"feature": "height", "distance": 0.9, "p_value": 0.5, "drifted": False},
        {"feature": "entropy", "distance": 0.5, "p_value": 0.0, "drifted": True},
    ]
    finding = only(run(BALANCED, drift=drift))

    assert (finding.check, finding.severity) == ("drift", "warn")
    assert "the 50 new images" in finding.message
    assert finding.message.endswith("in entropy (distance 0.50), width (distance 0.30)")


def test_classes_that_came_and_went_warn() -> None:
    found = {finding.check: finding for finding in run({"cat": 30, "eel": 30}, live={"cat": 20, "dog": 20})}

    assert set(found) == {"class-vanished", "class-added"}
    assert "'dog'" in found["class-vanished"].message
    assert "'eel'" in found["class-added"].message
    assert {finding.severity for finding in found.values()} == {"warn"}
