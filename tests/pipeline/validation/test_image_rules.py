from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import runtime
from pipeline.errors import DataError
from pipeline.validation.verdict import Finding
from tests.pipeline.validation.gate import build, images, judged, limits, suspected

with runtime.quiet_imports():
    from pipeline.validation import data_docs, expectations


def found(findings: list[Finding]) -> dict[str, tuple[str, list[str]]]:
    return {finding.check: (finding.severity, list(finding.examples)) for finding in findings}


def ids(rows: pa.Table) -> list[Any]:
    return list(rows["image_id"].to_pylist())


def test_good_rows_break_no_rule(tmp_path: Path) -> None:
    assert judged(build(images()), tmp_path, limits("labels=[cat, dog]")) == []


def test_damaged_tables_block_whatever_the_policy_is(tmp_path: Path) -> None:
    rows = images(
        image_id=["same", "same", None, *(str(number) for number in range(37))],
        uri=["twice", "twice", *(str(number) for number in range(38))],
        label=["cat"] * 20 + ["", None] + ["dog"] * 18,
        bytes=[0] + [10] * 39,
    )
    findings = judged(build(rows), tmp_path, limits("min_per_class=10"))

    assert {(finding.check, finding.severity) for finding in findings} == {("table", "block")}
    assert {finding.message: list(finding.examples) for finding in findings} == {
        "1 of 40 images has no image id": ["0"],
        "2 of 40 images share an image id": ["twice", "twice"],
        "2 of 40 images share a uri": ["twice", "twice"],
        "1 of 40 images has no label": ["19"],
        "1 of 40 images has an empty label": ["18"],
        "1 of 40 images has no bytes": ["twice"],
    }


def test_sizes_and_labels(tmp_path: Path) -> None:
    rows = images(
        label=["cat"] * 19 + ["eel"] + ["dog"] * 20,
        width=[7, 80, 81, 10, 10] + [100] * 35,
        height=[7, 10, 10, 80, 81] + [100] * 35,
    )
    findings = judged(build(rows), tmp_path, limits("labels=[cat, dog]", "policy.class_size='off'", "min_per_class=1"))

    assert found(findings) == {
        "imbalance": ("warn", []),
        "allowed_labels": ("block", ["19.png"]),
        "small_image": ("warn", ["0.png"]),
        "aspect_ratio": ("warn", ["2.png", "4.png"]),
    }
    messages = [finding.message for finding in findings]
    assert "1 of 40 images has a label that is not in validate.labels: 'eel'" in messages
    assert "1 of 40 images has a side shorter than validate.min_side = 8 px" in messages


def test_each_defect_is_a_finding(tmp_path: Path) -> None:
    rows = images(
        contrast=[0.0] + [0.2] * 39,
        std_r=[0.0] + [0.2] * 39,
        std_g=0.0,
        std_b=0.0,
        sharpness=[0.02, 0.02, 0.02, 1e-5] + [0.02] * 36,
        brightness=[0.4, 0.02, 0.97] + [0.4] * 37,
        thumbnail=[bytes([100] * 256), bytes([4] * 256), bytes([250] * 256)] + [bytes([0, 200] * 128)] * 37,
    )

    assert found(judged(build(rows), tmp_path)) == {
        "blank_image": ("warn", ["0.png"]),
        "dark_image": ("warn", ["1.png"]),
        "bright_image": ("warn", ["2.png"]),
        "blurred_image": ("warn", ["3.png"]),
    }


def test_the_policy_decides_and_off_is_not_looked_for(tmp_path: Path) -> None:
    rows = images(width=[4, 900] + [100] * 38, height=100)
    policy = limits("policy.small_image=block", "policy.aspect_ratio='off'", "min_side=8")

    assert found(judged(build(rows), tmp_path, policy)) == {"small_image": ("block", ["0.png"])}


def test_ten_examples_are_named_and_all_are_counted(tmp_path: Path) -> None:
    (finding,) = judged(build(images(width=4, height=4)), tmp_path)

    assert list(finding.examples) == [f"{number}.png" for number in range(10)]
    assert finding.numbers == {"failing": 40, "images": 40}


def test_near_duplicates_of_another_class_come_first(tmp_path: Path) -> None:
    rows = images()  # dog, cat, dog, cat, ...
    name = ids(rows)
    pairs = [(name[0], name[2]), (name[2], "removed since"), ("removed since", name[4]), (name[7], name[6])]
    findings = judged(build(rows, pairs=pairs), tmp_path, unsearched=2)

    assert [(finding.message, list(finding.examples)) for finding in findings] == [
        (
            "1 picture in several classes, as near duplicates: 6.png ('dog'), 7.png ('cat'); "
            "2 images not searched for crops",
            ["6.png", "7.png"],
        ),
        (
            "3 images are near duplicates of each other and show 1 picture: "
            "stored again, re-encoded, resized, cropped, mirrored or brightened; 2 images not searched for crops",
            ["0.png", "2.png", "4.png"],
        ),
    ]


def test_suspects_are_named_worst_first_unless_they_have_been_relabelled(tmp_path: Path) -> None:
    rows = images()
    name = ids(rows)
    suspects = suspected(
        {"image_id": name[number], "uri": f"{number}.png", "label": label, "suggested": suggested}
        for number, label, suggested in ((9, "cat", "dog"), (4, "dog", "cat"), (6, "cat", "dog"))
    )
    (finding,) = judged(build(rows, suspects=suspects), tmp_path, suspects=ids(suspects))

    assert finding.message == (
        "2 images look like another class than their label says, most of all 9.png ('cat', looks like 'dog')"
    )
    assert list(finding.examples) == ["9.png", "4.png"]


def test_a_rule_that_cannot_be_checked_is_an_error(tmp_path: Path) -> None:
    tables = build(images())
    without = type(tables)(tables.images.drop(columns="short_side"), tables.files, tables.classes)

    with pytest.raises(DataError, match="The rule small_image could not be checked"):
        judged(without, tmp_path)


def test_the_pages_stand_alone_and_run_nothing(tmp_path: Path) -> None:
    label = "<img src=http://localhost/x onerror=alert(1)>"
    rows = images(width=[4] + [100] * 39, height=100, label=label)
    judged(build(rows), tmp_path / "project", limits("labels=[cat]"))
    data_docs.publish(tmp_path / "project" / expectations.SITE, tmp_path / "docs")

    written = sorted((tmp_path / "docs").rglob("*"))
    texts = {path: path.read_text() for path in written if path.is_file()}
    assert {path.suffix for path in texts} == {".html"}
    for text in texts.values():
        assert "Content-Security-Policy\" content=\"default-src 'none'" in text
        assert not re.search(r"<script|<link|src=|url\(", text)
    results = "".join(text for path, text in texts.items() if "validations" in path.parts)
    assert "short_side" in results
    assert "0.png" in results
    index = texts[tmp_path / "docs/index.html"]
    links = re.findall(r'href="([^"]+)"', index)
    assert len(links) == 6  # results and suite of each of three tables
    assert all((tmp_path / "docs" / link).is_file() for link in links)
