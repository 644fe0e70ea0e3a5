from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import settings
from pipeline.validation.verdict import Finding
from tests.pipeline.validation.gate import ROOT, build, judged, limits, of_classes

BALANCED = {"cat": 30, "dog": 40}


def found(folder: Path, classes: dict[str, int], *overrides: str, **options: object) -> dict[str, Finding]:
    findings = judged(build(of_classes(classes)), folder, limits(*overrides), **options)
    return {finding.check: finding for finding in findings}


@pytest.mark.parametrize("live", [None, BALANCED], ids=["without-live", "with-live"])
def test_good_classes_break_no_rule(tmp_path: Path, live: dict[str, int] | None) -> None:
    assert found(tmp_path, BALANCED, live=live) == {}


def test_one_class_is_one_finding_that_names_it(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, {"cat": 100}).values()

    assert (finding.check, finding.severity) == ("class_count", "block")
    assert finding.message == "found only the class 'cat', expected at least 2 classes"
    assert "one folder per class" in finding.fix


def test_each_class_is_judged_by_its_own_size(tmp_path: Path) -> None:
    findings = found(tmp_path, {"cat": 201, "dog": 2, "eel": 1, "fox": 3, "gnu": 19, "hen": 20})

    assert {check: (finding.severity, dict(finding.numbers)) for check, finding in findings.items()} == {
        "class_size": ("block", {"dog": 2, "eel": 1}),
        "small_class": ("warn", {"fox": 3, "gnu": 19}),
        "imbalance": ("warn", {"ratio": 201.0}),
    }
    assert findings["class_size"].message == ("2 classes have too few images: 'eel' 1, 'dog' 2, fewer than the 3 folds")
    assert findings["class_size"].fix == "add images of 'dog', 'eel'"
    assert findings["imbalance"].message == (
        "'cat' has 201 times the images of 'eel' (201 and 1), more than validate.max_imbalance = 10"
    )


def test_the_proposed_folds_are_valid_settings(tmp_path: Path) -> None:
    finding = found(tmp_path, {"cat": 40, "dog": 3}, folds=5)["class_size"]
    override = finding.fix.split("'")[-2]

    assert finding.message == "class 'dog' has 3 images, fewer than the 5 folds"
    params = settings.read_params(ROOT / "params.yaml")
    assert settings.parse(settings.with_overrides(params, [override])).train.folds == 3


@pytest.mark.parametrize(("large", "warned"), [(200, False), (201, True)], ids=str)
def test_the_limit_of_imbalance(tmp_path: Path, large: int, warned: bool) -> None:
    assert ("imbalance" in found(tmp_path, {"cat": large, "dog": 20})) is warned


def test_labels_that_differ_in_form_only(tmp_path: Path) -> None:
    classes = {"hot dog": 30, "Hot-Dog": 20, "cafe\u0301": 21, "caf\u00e9": 25, "cat": 30}
    finding = found(tmp_path, classes)["similar_labels"]

    assert finding.message == (
        "labels that differ in case, spaces, hyphens or encoding only: "
        "'hot dog' (30) and 'Hot-Dog' (20), 'caf\u00e9' (25) and 'cafe\u0301' (21)"
    )
    assert (
        finding.fix == "if they mean one class, move the images of 'Hot-Dog' to 'hot dog', 'cafe\u0301' to 'caf\u00e9'"
    )


def test_classes_that_came_and_went_warn(tmp_path: Path) -> None:
    findings = found(tmp_path, {"cat": 30, "eel": 31}, live={"cat": 20, "dog": 22})

    assert {check: (finding.severity, dict(finding.numbers)) for check, finding in findings.items()} == {
        "class_vanished": ("warn", {"dog": 22}),
        "class_added": ("warn", {"eel": 31}),
    }


def test_labels_are_taken_as_they_are_whatever_they_look_like(tmp_path: Path) -> None:
    odd = ["$HOME", "${PATH}", "{{ 7 * 7 }}", "<b>", "a\nb", "'", '"', "漢字", "x" * 2000, "null", "nan", "0", "True"]
    classes = dict.fromkeys(odd, 20)

    assert found(tmp_path, classes, live=classes) == {}
