from __future__ import annotations

import pytest

from pipeline.errors import DataError
from pipeline.validation.verdict import Finding, Verdict

WARN = Finding("imbalance", "warn", "cats outnumber dogs", "add dogs", {"ratio": 12.5})
BLOCK = Finding("class_count", "block", "found one class", "add a class", {"classes": 1}, ("a.png",))
OTHER = Finding("table", "block", "2 of 9 images have no label", "add a class")


@pytest.mark.parametrize(
    ("findings", "worst"),
    [([], "pass"), ([WARN], "warn"), ([BLOCK], "block"), ([WARN, BLOCK], "block")],
    ids=["none", "warn", "block", "both"],
)
def test_the_worst_finding_is_the_verdict(findings: list[Finding], worst: str) -> None:
    assert Verdict.of(findings).worst == worst


def test_what_blocks_comes_first_in_the_file() -> None:
    content = Verdict.of([WARN, BLOCK, OTHER]).to_json()

    assert [finding["check"] for finding in content["findings"]] == ["class_count", "table", "imbalance"]
    assert content["findings"][0] == {
        "check": "class_count",
        "severity": "block",
        "message": "found one class",
        "fix": "add a class",
        "numbers": {"classes": 1},
        "examples": ("a.png",),
    }


def test_a_block_is_one_line_with_every_problem_and_each_fix_once() -> None:
    with pytest.raises(DataError) as raised:
        Verdict.of([WARN, BLOCK, OTHER]).raise_if_blocked()

    assert str(raised.value) == (
        "The data cannot be trained on: found one class; 2 of 9 images have no label. Fix: add a class"
    )


def test_a_warning_stops_nothing() -> None:
    Verdict.of([WARN]).raise_if_blocked()
