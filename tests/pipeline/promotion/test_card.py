"""The card of a version: numbers where they belong, gaps named, what people wrote untouched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.promotion import card, card_text
from pipeline.promotion.limits import limits
from pipeline.promotion.promote import FINAL
from tests.pipeline.promotion.finished_run import finished_run

SLICE: dict[str, Any] = {
    **{"by": "size", "value": "small | tiny", "images": 12, "groups": 9, "accuracy": 0.5, "accuracy_low": 0.25},
    **{"accuracy_high": 0.75, "compared": 12, "difference": -0.125, "difference_low": -0.3, "difference_high": 0.1},
}


def completed(run: Path) -> str:
    return card_text.complete((run / FINAL / "card.md").read_text(), card.collect(run))


def titles(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0].strip()


def test_the_figures_come_with_their_intervals(tmp_path: Path) -> None:
    found = card.collect(finished_run(tmp_path / "r1"))

    assert found["metrics"]["accuracy"] == pytest.approx({"value": 0.9, "low": 0.82, "high": 0.97})
    assert found["metrics"]["macro_f1"] == {"value": 0.75, "low": None, "high": None}
    assert found["metrics"]["roc_auc"]["value"] is None
    assert found["metrics"]["top_2_accuracy"] == {"value": 0.95, "low": 0.9, "high": 1.0}
    assert not {"images", "per_class", "top_k", "accuracy_low"} & found["metrics"].keys()
    assert found["created_at"] == "2026-03-01T02:15:00+00:00"
    assert found["data"] == {
        "digest": files.sha256(tmp_path / "r1/data/assignment.parquet"),
        "source": "/photos/pets",
        "images": 6,
        "classes": {"cat": 2, "dog": 2, "eel": 2},
        "quarantined": {"damaged": 2},
        "batches": [{"batch": "0001", "accepted": 6, "removed": 0}],
        "splits": {"train": 2, "val": 1, "test": 2, "quarantine": 1},
        "split_classes": {split: {"cat": 1, "dog": 1, "eel": 1} for split in ("train", "val", "test", "quarantine")},
    }
    assert found["decision"] == files.read_json(tmp_path / "r1/decision.json")


def test_what_training_and_people_wrote_stays_and_the_promotion_adds_its_sections(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "r1", metrics={"slices": [SLICE]}, decision={"warnings": ["Look at eels."]})
    stub = (
        (run / FINAL / "card.md")
        .read_text()
        .replace("## Contact\n\n**To do:** Who answers for this model.", "## Contact\n\nAnna, from 9 to 5.")
    )
    files.write_text(run / FINAL / "card.md", stub)

    text = completed(run)

    added = [
        *("Decision", "Figures on 46 held-out images", "Figures by class", "Figures by slice"),
        *("What was not measured", "Data snapshot"),
    ]
    assert titles(text) == ["Model", *added, *titles(stub)[1:]]
    for title in titles(stub):
        assert section(text, title) == section(stub, title), title
    assert section(text, "Contact") == "Anna, from 9 to 5."
    assert "**To do:** Who uses the answers" in section(text, "Intended use")
    assert text.startswith(
        "# Model card: classifier\n\nWritten by Refit for the version that run r1 has made. **To do**"
    )
    assert "A stub" not in text
    assert "| accuracy | 0.900 [0.820, 0.970] |" in text
    assert "| roc auc | unknown |" in text
    assert "| cat | 40 | 0.700 | 0.800 |" in section(text, "Figures by class")
    assert "| size | small \\| tiny | 12 | 0.500 [0.250, 0.750] | -0.125 [-0.300, 0.100] |" in text
    assert "| pass | accuracy floor | 0.9 | 0.5 | Test accuracy is 0.900; the floor is 0.500. |" in text
    assert "- Look at eels." in section(text, "Decision")
    assert "| batches | 0001 (+6 -0) |" in section(text, "Data snapshot")


def test_without_a_stub_the_card_is_what_the_promotion_knows(tmp_path: Path) -> None:
    text = card_text.complete("", card.collect(finished_run(tmp_path / "r1")))
    assert text.startswith("# Model card\n")
    assert titles(text)[0] == "Decision"
    assert "Figures by slice" not in text


def test_names_from_outside_end_no_cell_and_start_no_tag(tmp_path: Path) -> None:
    text = completed(finished_run(tmp_path / "r1", classes=("a|b", "<script>", "c\nd")))
    assert "<script>" not in text
    assert "| a\\|b | 40 |" in text
    assert "| c d | 0 |" in text


TEST = {
    "images": 46,
    "accuracy": 0.9,
    "accuracy_low": 0.82,
    "accuracy_high": 0.97,
    "roc_auc": None,
    "per_class": {"cat": {"support": 40}, "dog": {"support": 6}, "eel": {"support": 0}},
}
LEFT_OUT = [
    {"by": "size", "value": "small", "images": 2, "reason": "few images"},
    {"by": "time", "value": "51 different values, more than 50", "images": 46, "reason": "too many values"},
    {"by": "size", "value": "large", "images": 2, "reason": "few images"},
    {"by": "camera", "value": "no value", "images": 1, "reason": "no value"},
]
SERVING = {"container": {"status": "passed"}, "latency": {"cpu": {}, "gpu": {"1": {}}}}


@pytest.mark.parametrize(
    ("metrics", "serving", "decision", "expected"),
    [
        ({}, SERVING, {}, r"No held-out image shows eel: "),
        ({}, SERVING, {}, r"Fewer than 10 held-out images show dog \(6\): "),
        ({}, SERVING, {}, r"46 held-out images place the accuracy between 0\.820 and 0\.970"),
        ({}, SERVING, {}, r"do not tell: roc auc\."),
        ({}, SERVING, {}, r"compared with no other model"),
        ({"live": {"version": 3, "excluded": 4}}, SERVING, {}, r"4 held-out images had been seen by version 3"),
        (
            {"slices_left_out": LEFT_OUT},
            SERVING,
            {},
            r"^Too few held-out images for a figure by size: small \(2\), large \(2\)\.$",
        ),
        ({"slices_left_out": LEFT_OUT}, SERVING, {}, r"^There is no figure by time: it has 51 different values, more "),
        (
            {"slices_left_out": LEFT_OUT},
            SERVING,
            {},
            r"^No figure by camera holds all held-out images: 1 image has no value of it\.$",
        ),
        ({"leakage": {"groups": 1, "images": 3}}, SERVING, {}, r"3 held-out images have near copies"),
        ({}, None, {}, r"How fast it answers, and whether servers load it, was not measured"),
        ({}, {**SERVING, "container": {"status": "skipped", "reason": "no Docker"}}, {}, r"container: no Docker\."),
        ({}, {**SERVING, "latency": {"cpu": {}, "gpu": None}}, {}, r"on a GPU was not measured"),
        ({}, SERVING, {"test_uses": {"median": 7, "images": 46, "unused": 0}}, r"have served 7 earlier decisions"),
    ],
)
def test_what_is_not_known_is_said(
    metrics: dict[str, Any], serving: dict[str, Any] | None, decision: dict[str, Any], expected: str
) -> None:
    found = limits({"test": TEST, "live": None, **metrics}, serving, decision, ["cat", "dog", "eel"])
    assert len([sentence for sentence in found if re.search(expected, sentence)]) == 1, found


def test_nothing_is_said_of_what_is_known() -> None:
    per_class = {label: {"support": 500} for label in ("cat", "dog")}
    test = {"images": 1000, "accuracy": 0.9, "accuracy_low": 0.88, "accuracy_high": 0.92, "per_class": per_class}
    metrics = {"test": test, "live": {"version": 1, "excluded": 0}, "leakage": {"images": 0}, "slices_left_out": []}
    assert limits(metrics, SERVING, {"test_uses": {"median": 0}}, ["cat", "dog"]) == []


def test_long_lists_of_classes_are_cut_short() -> None:
    labels = [f"c{number}" for number in range(25)]
    test = {"images": 0, "per_class": {}}
    [sentence, *_] = limits({"test": test, "live": {"version": 1}}, SERVING, {}, labels)
    assert "c9 and 15 more" in sentence
    assert "c10" not in sentence
