from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import runtime
from pipeline.settings import Validate
from pipeline.validation.verdict import Finding
from tests.pipeline.profiling.tables import table

with runtime.quiet_imports():
    from pipeline.validation import expectations, pages

LIMITS = Validate(
    labels=None, min_classes=2, min_per_class=20, min_side=8, max_aspect_ratio=8, max_quarantine_share=0.2
)


def images(count: int = 20, **columns: Any) -> pa.Table:
    uri = columns.pop("uri", [f"{number}.png" for number in range(count)])
    return table(count, **columns).append_column("uri", pa.array(uri, pa.string()))


def judged(rows: pa.Table, project: Path, limits: Validate = LIMITS) -> list[Finding]:
    return list(expectations.findings(expectations.run(rows, expectations.rules(limits), project)))


def test_good_rows_break_no_rule(tmp_path: Path) -> None:
    assert judged(images(), tmp_path, LIMITS.model_copy(update={"labels": ("cat", "dog")})) == []


def test_every_broken_rule_is_found_with_its_rows(tmp_path: Path) -> None:
    rows = images(
        image_id=["same", "same", *(str(number) for number in range(18))],
        uri=["twice", "twice", *(str(number) for number in range(18))],
        label=["cat"] * 15 + ["eel", "", None, "dog", "dog"],
        width=[7, 900, 800] + [100] * 17,
        height=[100] * 20,
        bytes=[0] + [10] * 19,
    )
    found = {
        finding.check: finding
        for finding in judged(rows, tmp_path, LIMITS.model_copy(update={"labels": ("cat", "dog")}))
    }

    assert {check: (finding.severity, list(finding.examples)) for check, finding in found.items()} == {
        "image-unique": ("block", ["twice", "twice"]),
        "uri-unique": ("block", ["twice", "twice"]),
        "label": ("block", ["14"]),
        "label-missing": ("block", ["15"]),
        "allowed-labels": ("block", ["13", "14"]),
        "small-image": ("warn", ["twice"]),
        "aspect-ratio": ("warn", ["twice", "twice"]),
        "empty-file": ("block", ["twice"]),
    }
    assert found["small-image"].message == "1 of 20 images have a side shorter than validate.min_side = 8 px"


def test_ten_examples_are_named_and_all_are_counted(tmp_path: Path) -> None:
    (finding,) = judged(images(30, width=4), tmp_path, LIMITS.model_copy(update={"max_aspect_ratio": 1000.0}))

    assert list(finding.examples) == [f"{number}.png" for number in range(10)]
    assert finding.numbers == {"failing": 30, "images": 30}


@pytest.mark.parametrize(
    ("width", "height", "broken"),
    [(80, 10, False), (81, 10, True), (10, 80, False), (10, 81, True)],
    ids=["wide", "too-wide", "tall", "too-tall"],
)
def test_aspect_ratio_counts_in_both_orientations(tmp_path: Path, width: int, height: int, broken: bool) -> None:
    findings = judged(images(width=width, height=height), tmp_path)

    assert [finding.check for finding in findings] == (["aspect-ratio"] if broken else [])


def test_the_pages_stand_alone_and_run_nothing(tmp_path: Path) -> None:
    label = "<img src=http://localhost/x onerror=alert(1)>"
    rows = images(width=[4] + [100] * 19, height=100, label=label)
    judged(rows, tmp_path / "project", LIMITS.model_copy(update={"labels": ("cat",)}))
    pages.publish(tmp_path / "project" / expectations.SITE, tmp_path / "docs")

    written = sorted((tmp_path / "docs").rglob("*"))
    texts = {path: path.read_text() for path in written if path.is_file()}
    assert {path.suffix for path in texts} == {".html"}
    for text in texts.values():
        assert "Content-Security-Policy\" content=\"default-src 'none'" in text
        assert not re.search(r"<script|<link|src=|url\(", text)
    results = next(text for path, text in texts.items() if "validations" in path.parts)
    assert "short_side" in results
    assert "0.png" in results
    index = texts[tmp_path / "docs/index.html"]
    links = re.findall(r'href="([^"]+)"', index)
    assert len(links) == 2
    assert all((tmp_path / "docs" / link).is_file() for link in links)
