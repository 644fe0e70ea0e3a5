from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from pipeline.report import evidence, mistakes
from pipeline.report.build import build, differences
from tests.pipeline.report.workspace import CLASSES, Workspace

ROOT = Path(__file__).parents[3]
STAGES = [name for name, _ in Workspace(Path()).stages()]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>{{ 7*7 }}"
VOID = {"meta", "img", "br", "line", "rect", "polyline"}
FETCHING = {"src", "href", "srcset", "poster", "data", "action", "xlink:href", "background"}
STRIPS = re.compile(r'<table class="strips">.*?</table>', flags=re.DOTALL)  # the contact sheet


class Page(HTMLParser):
    """Tags opened and never closed, tags seen, what would be fetched, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.fetched: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [value or "" for name, value in attrs if name in FETCHING]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            raise ValueError(f"</{tag}> closes another element")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("REFIT_HOME", str(tmp_path / "home"))
    return Workspace(tmp_path / "run")


def page(run: Workspace) -> str:
    return build(run.path).read_text()


def check(html: str) -> Page:
    """Well-formed, self-contained, and without script."""
    parsed = Page(html)
    assert parsed.open == []
    assert not parsed.tags & {"script", "link", "iframe", "object", "embed", "form", "base", "video", "audio"}
    assert parsed.handlers == []
    assert [url for url in parsed.fetched if not url.startswith(("#", "data:image/jpeg;base64,"))] == []
    assert not re.search(r"https?://|//[a-z]|url\(|@import", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html).lower())
    return parsed


@pytest.mark.parametrize("live", [True, False], ids=["live", "first"])
@pytest.mark.parametrize("last", STAGES)
def test_every_prefix_of_a_run_has_a_page(run: Workspace, last: str, live: bool) -> None:
    run = Workspace(run.path, live=live, images=40).until(last)
    parsed = check(page(run))
    headings = {"ingest": "Batches", "validate": "Verdict:", "train@final": "Training", "evaluate": "Held-out test"}
    for stage, heading in headings.items():
        assert (heading in parsed.text) == (STAGES.index(last) >= STAGES.index(stage))
    assert ("Compared with live version 3" in parsed.text) == (live and STAGES.index(last) >= STAGES.index("evaluate"))


@pytest.mark.parametrize("last", STAGES)
def test_a_failure_after_any_stage_is_on_top_with_its_fix(run: Workspace, last: str) -> None:
    run = Workspace(run.path, images=40).until(last)
    (run.path / "promotion.json").unlink(missing_ok=True)
    run.fail("Weights are missing.", "fetch the weights")
    parsed = check(page(run))
    failed = STAGES[min(STAGES.index(last) + 1, len(STAGES) - 1)]
    top = parsed.text[: parsed.text.index("Lineage")]
    assert f"Failed in {failed}" in top
    assert "Weights are missing." in top
    assert "fetch the weights" in top


def test_a_blocked_run_names_the_validation(run: Workspace) -> None:
    run.until("profile").validate("block")
    run.fail("The data cannot be trained on.", "add images")
    assert "Blocked: the data cannot be trained on" in check(page(run)).text
    assert '<li class="failed">validate</li>' in page(run)


def test_refused_says_what_stays_live(run: Workspace) -> None:
    run.until("diagnose").gate(promote=False)
    parsed = check(page(run))
    assert "Refused: version 3 stays live" in parsed.text
    assert "Refused: the run's own words" in parsed.text
    assert parsed.text.count("✗ fail") == 2


def test_nothing_new(run: Workspace) -> None:
    run.until("ingest").status("nothing_new")
    assert "Nothing new" in check(page(run)).text


def test_numbers_come_from_the_files(run: Workspace) -> None:
    run.until("promote")
    parsed = check(page(run))
    assert "Promoted: version 4 of steel is live" in parsed.text
    assert "No test image, so no figure: unlisted." in parsed.text
    assert "train.phases.finetune.unfreeze" in parsed.text
    assert parsed.text.count("130 files") >= 1
    assert "brightness" in parsed.text
    assert "12" * 32 in parsed.text


def test_a_run_of_an_earlier_version_has_a_page(run: Workspace) -> None:
    run.until("promote")
    for name, keys in {
        "metrics/evaluate.json": ("calibration", "slices", "slices_left_out", "leakage"),
        "decision.json": ("warnings", "borderline", "test_uses", "forms_digest"),
    }.items():
        content = json.loads((run.path / name).read_text())
        run.write(name, {key: value for key, value in content.items() if key not in keys})
    (run.path / "metrics/serving.json").unlink()
    parsed = check(page(run))
    assert "Promoted: version 4 of steel is live" in parsed.text
    assert "fold spread" in parsed.text


def test_outputs_checked_out_from_the_parent_are_not_shown_as_this_runs(run: Workspace) -> None:
    run.until("evaluate")
    for name in ("metrics/evaluate.json", "done/evaluate", "done/train@final"):
        (run.path / name).unlink()
    parsed = check(page(run))
    assert "Held-out test" not in parsed.text
    assert "Training" not in parsed.text
    assert "Mistakes" not in parsed.text


def test_what_is_shown_unasked_is_never_restored_by_dvc() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert tuple(stages) == evidence.STAGES
    for name, output in {
        "ingest": "metrics/ingest.json",
        "profile": "metrics/profile.json",
        "validate": "reports/validation",
        "shard": "metrics/shard.json",
        "evaluate": "metrics/evaluate.json",
        "diagnose": "reports/diagnosis.json",
        "serve": "metrics/serving.json",
        "gate": "decision.json",
    }.items():
        entries = stages[name].get("outs", []) + stages[name].get("metrics", [])
        assert {output: {"cache": False}} in entries, name


def test_labels_and_messages_are_escaped(run: Workspace) -> None:
    hostile = Workspace(
        run.path,
        classes=(HOSTILE, "a&b", "<style>*{display:none}</style>", "javascript:alert(3)", "e\u202ef", "g"),
        message=HOSTILE,
        overrides=(f"ingest.source={json.dumps(HOSTILE)}",),
        images=60,
    ).until("promote")
    hostile.fail(HOSTILE, HOSTILE)
    html = page(hostile)
    parsed = check(html)
    assert parsed.text.count("<script>alert(1)</script>") > 5
    assert html.count("<style>") == 1
    assert "{{ 7*7 }}" in html


def test_mistakes_show_pictures_and_stay_within_bounds(run: Workspace) -> None:
    run = Workspace(run.path, images=2000, classes=tuple(f"class {number}" for number in range(40)))
    run.until("promote")
    pictures = re.findall(r'<img src="(data:image/jpeg;base64,[^"]+)"', STRIPS.sub("", page(run)))
    assert len(pictures) == mistakes.SHOWN
    assert max(map(len, pictures)) < 8192 + 30


def test_cells_of_the_matrix_lead_to_their_examples(run: Workspace) -> None:
    html = page(run.until("promote"))
    wanted = set(re.findall(r'<a href="#(mistakes-\d+)"', html))
    assert wanted
    assert wanted == set(re.findall(r'id="(mistakes-\d+)"', html))


def test_mistakes_without_their_images_are_left_out(
    run: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.until("promote")
    monkeypatch.setenv("REFIT_HOME", str(tmp_path / "elsewhere"))
    assert "<img" not in STRIPS.sub("", page(run))


@pytest.mark.parametrize(("classes", "cells"), [(8, 64), (100, 10_000), (101, 0)])
def test_the_matrix_copes_with_many_classes(run: Workspace, classes: int, cells: int) -> None:
    run = Workspace(run.path, images=300, classes=tuple(f"c{number}" for number in range(classes))).until("evaluate")
    html = page(run)
    check(html)
    found = re.search(r'<table class="matrix.*?</table>', html, flags=re.DOTALL)
    body = found[0].split("<tbody>")[1] if found else ""
    assert body.count("<td") == cells
    assert "Most confused" in html
    assert len(html) < 1_000_000


def test_the_contact_sheet_is_in_the_page(run: Workspace) -> None:
    html = page(run.until("shard"))
    check(html)
    strips = STRIPS.search(html)
    assert strips
    assert strips[0].count('src="data:image/jpeg;base64,') == 2
    assert f'<th scope="row">{CLASSES[0]}</th>' in strips[0]
    assert '<th scope="row">Mixed within a batch</th>' in strips[0]


def test_a_file_that_is_no_json_does_not_cost_the_page(run: Workspace) -> None:
    run.until("ingest")
    (run.path / "metrics/ingest.json").write_text("{")
    assert "Lineage" in check(page(run)).text


def test_only_params_that_differ_are_listed() -> None:
    defaults = {"a": {"b": 1, "c": {"d": 2}}, "e": [1]}
    found = list(differences(defaults, {"a": {"b": 1, "c": {"d": 3}}, "e": [2], "f": None}))
    assert found == [{"key": "a.c.d", "default": 2, "value": 3}, {"key": "e", "default": [1], "value": [2]}]


def test_the_report_needs_no_heavy_library() -> None:
    code = "import sys, pipeline.report.build; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"tensorflow", "keras", "pandas", "scipy", "sklearn", "airflow", "dvc"} & set(loaded.split())


def test_slices_that_are_left_out_are_said_by_reason_and_one_that_remains_is_shown(run: Workspace) -> None:
    run.until("evaluate")
    path = run.path / "metrics/evaluate.json"
    metrics = json.loads(path.read_text())
    [left, *_] = [row for row in metrics["slices"] if row["value"] == "left"]
    metrics["slices"] = [left]
    metrics["slices_left_out"] = [
        {"by": "camera", "value": "right", "images": 4, "reason": "few images"},
        {"by": "time", "value": "51 different values, more than 50", "images": 240, "reason": "too many values"},
        {"by": "camera", "value": "no value", "images": 7, "reason": "no value"},
    ]
    path.write_text(json.dumps(metrics))
    text = Page(page(run)).text
    assert "By camera, lowest accuracy first" in text
    assert "No slice has" not in text
    assert "Too small to measure: camera right (4)." in text
    assert "Not measured by time: it has 51 different values, more than 50." in text
    assert "Images without a value: 7 by camera." in text
    path.write_text(json.dumps(metrics | {"slices": []}))
    assert "No slice has 10 test images or more." in Page(page(run)).text
