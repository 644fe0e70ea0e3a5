from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.ingestion import reasons
from pipeline.validation.file_rules import UNREADABLE
from tests.pipeline.validation.gate import build, images, judged, limits, quarantined

NO_LIMIT = limits("max_quarantine_share=1")


def test_every_reason_of_quarantine_has_words_and_a_cure() -> None:
    assert set(UNREADABLE) == set(reasons.CURES) - {reasons.CONFLICT, reasons.DUPLICATE}


def test_each_reason_is_a_finding_with_its_files_and_its_fix(tmp_path: Path) -> None:
    findings = judged(build(images(), quarantined(["damaged", "empty", "damaged", "unheard-of"])), tmp_path)

    assert {finding.check for finding in findings} == {"unreadable"}
    assert [(finding.message, list(finding.examples)) for finding in findings] == [
        (
            "2 of 44 listed files are damaged: not every pixel can be decoded (damaged)",
            ["cat/q0.jpg", "cat/q2.jpg"],
        ),
        ("1 of 44 listed files is empty (empty)", ["cat/q1.jpg"]),
        ("1 of 44 listed files is in quarantine (unheard-of)", ["cat/q3.jpg"]),
    ]
    assert findings[0].fix == "replace it by a complete copy"


def test_the_same_bytes_elsewhere(tmp_path: Path) -> None:
    conflict = quarantined(["label-conflict"] * 4)
    ids = pa.array(["b", "a", "b", "a"])
    conflict = conflict.set_column(conflict.column_names.index("image_id"), "image_id", ids)
    copy = quarantined(["exact-duplicate"], uri="cat/copy.jpg")
    findings = judged(build(images(), pa.concat_tables([conflict, copy])), tmp_path, NO_LIMIT)

    assert [(finding.check, finding.message, list(finding.examples)) for finding in findings] == [
        (
            "label_conflict",
            "4 files with the same bytes in several classes (2 pictures)",
            ["cat/q1.jpg", "cat/q3.jpg", "cat/q0.jpg", "cat/q2.jpg"],
        ),
        ("exact_duplicates", "1 file repeats the bytes of another one of its class", ["cat/copy.jpg"]),
    ]


@pytest.mark.parametrize(
    ("accepted", "lost", "blocked"),
    [
        pytest.param(80, ["damaged"] * 20, False, id="at-the-limit"),
        pytest.param(79, ["damaged"] * 20 + ["empty"], True, id="above"),
        pytest.param(20, ["exact-duplicate"] * 80, False, id="second-copies-lose-nothing"),
        pytest.param(1, ["not-an-image"] * 5, False, id="a-few-stray-files"),
    ],
)
def test_quarantine_share(tmp_path: Path, accepted: int, lost: list[str], blocked: bool) -> None:
    findings = judged(
        build(images(accepted, label="cat"), quarantined(lost)), tmp_path, limits("policy.class_count='off'")
    )

    assert ("quarantine_share" in {finding.check for finding in findings}) is blocked


def test_only_the_newest_batch_counts_to_the_share(tmp_path: Path) -> None:
    earlier = images(40)
    newest = images(5, batch="0002", uri=[f"new{number}" for number in range(5)])
    files = [quarantined(["damaged"] * 30), quarantined(["empty"] * 4 + ["damaged"] * 2, batch="0002")]
    tables = build(pa.concat_tables([earlier, newest]), pa.concat_tables(files))
    (finding, *others) = judged(tables, tmp_path, newest="0002")

    assert (finding.check, finding.severity) == ("quarantine_share", "block")
    assert finding.message == (
        "6 of the 11 new files of batch 0002 cannot be used (damaged 2, empty 4), "
        "more than validate.max_quarantine_share = 20%"
    )
    assert {other.check for other in others} == {"unreadable"}
    assert judged(tables, tmp_path / "nothing-new", limits("policy.unreadable='off'"), newest="0003") == []
