from __future__ import annotations

from typing import Any

from pipeline.validation.drift import findings
from pipeline.validation.verdict import Finding
from tests.pipeline.validation.gate import limits


def item(feature: str, distance: float, *, against: str = "live", detail: str | None = None) -> dict[str, Any]:
    threshold = {"threshold": 0.2, "p_value": 0.5, "drifted": distance > 0.2}
    return {"against": against, "feature": feature, "distance": distance, "detail": detail} | threshold


def run(*drift: dict[str, Any], policy: tuple[str, ...] = ()) -> list[Finding]:
    return list(findings({"drift": list(drift), "new_images": 50}, limits(*policy).policy))


def test_no_drift_is_no_finding() -> None:
    assert run() == []
    assert run(item("width", 0.2), item("label", 0.1)) == []


def test_the_worst_features_are_named_first() -> None:
    (finding,) = run(item("width", 0.3), item("height", 0.1), item("entropy", 0.5))

    assert (finding.check, finding.severity) == ("drift", "warn")
    assert finding.message == (
        "the 50 new images differ from what the live model was trained on in "
        "entropy (distance 0.50), width (distance 0.30)"
    )
    assert finding.numbers == {"entropy": 0.5, "width": 0.3}


def test_the_batch_before_and_the_mix_of_classes_are_findings_of_their_own() -> None:
    found = run(
        item("width", 0.3, against="previous"),
        item("label", 0.4, detail="'cat' fell from 50 % to 10 %"),
        policy=("policy.class_mix=block",),
    )

    assert [(finding.check, finding.severity, finding.message) for finding in found] == [
        (
            "class_mix",
            "block",
            "the mix of classes of the 50 new images differs from that of what the live model was trained on "
            "(distance 0.40): 'cat' fell from 50 % to 10 %",
        ),
        ("drift", "warn", "the newest batch differs from the batch before it in width (distance 0.30)"),
    ]


def test_what_is_off_is_not_found() -> None:
    drift = (item("width", 0.3), item("label", 0.4))

    assert [finding.check for finding in run(*drift, policy=("policy.drift='off'",))] == ["class_mix"]
    assert [finding.check for finding in run(*drift, policy=("policy.class_mix='off'",))] == ["drift"]
