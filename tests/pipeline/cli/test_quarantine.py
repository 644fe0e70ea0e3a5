"""`refit quarantine` on a real run."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline import files, runs
from pipeline.cli.quarantine import app
from pipeline.ingestion import history, releases
from pipeline.settings import code_root, read_params, with_overrides

Quarantine = Callable[..., Result]


@pytest.fixture
def quarantine(monkeypatch: pytest.MonkeyPatch) -> Quarantine:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", os.environ["PATH"])  # the command sets it
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.fixture
def photos(source: Path, png: Callable[..., bytes]) -> Path:
    shutil.copy(source / "cat/cat-0.png", source / "dog/also.png")
    shutil.copy(source / "cat/cat-1.png", source / "cat/copy.png")
    (source / "cat/bomb [bold].png").write_bytes(png(1, 60, 50))
    (source / "cat/\x1b[2J.png").write_bytes(b"")
    (source / "loose.png").write_bytes(png(77))
    return source


@pytest.fixture
def ingested(photos: Path, monkeypatch: pytest.MonkeyPatch) -> runs.Run:
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return ingest("first", photos)


def ingest(run_id: str, photos: Path) -> runs.Run:
    overrides = ["execution.workers=1", "ingest.max_pixels=2000", "promote.model=pets"]
    params = with_overrides(read_params(code_root() / "params.yaml"), overrides)
    params["ingest"]["source"] = str(photos)
    run = runs.create(run_id, params)
    runs.reproduce(run, "ingest")
    run.update(status=runs.REFUSED)
    return run


def test_the_list_names_every_file_with_its_reason(quarantine: Quarantine, ingested: runs.Run, photos: Path) -> None:
    done = quarantine("list", "--model", "pets")
    assert done.exit_code == 0
    assert "6 in quarantine" in done.output
    for reason, count in {"label-conflict": 2, "exact-duplicate": 1, "too-many-pixels": 1, "no-label": 1}.items():
        assert re.search(rf"^ *{count} +{reason} ", done.output, re.MULTILINE)
    for name in ("dog/also.png", "cat/copy.png", "cat/bomb [bold].png", r"cat/\x1b[2J.png", "loose.png"):
        assert f"  {photos}/{name}  " in done.output
    assert "\x1b" not in done.output
    only = quarantine("list", "--reason", "exact-duplicate")
    assert "1 in quarantine" in only.output
    assert "loose.png" not in only.output


def test_what_is_known_of_a_file(quarantine: Quarantine, ingested: runs.Run, photos: Path) -> None:
    shown = quarantine("show", f"{photos}/cat/cat-0.png").output
    assert "label-conflict: the same bytes lie in several classes: cat, dog" in shown
    assert f"{photos}/dog/also.png (dog, label-conflict)" in shown
    assert "delete all copies but those of one class" in shown
    kept = re.search(r"kept at +(\S+)", shown)
    assert kept is not None
    assert Path(kept[1]).read_bytes() == (photos / "cat/cat-0.png").read_bytes()
    assert f"{photos}/cat/cat-1.png (cat, in the dataset)" in quarantine("show", f"{photos}/cat/copy.png").output
    assert "kept at" not in quarantine("show", f"{photos}/cat/\\x1b[2J.png").output
    missing = quarantine("show", f"{photos}/cat/cat-2.png")
    assert (missing.exit_code, "it is in the dataset" in missing.output) == (65, True)


def test_a_release_is_taken_in_by_the_next_run(
    quarantine: Quarantine, ingested: runs.Run, photos: Path, refit_home: Path
) -> None:
    done = quarantine("release", f"{photos}/dog/also.png", "--label", "dog", "--reason", "I looked")
    assert done.exit_code == 0, done.output
    assert "new class" not in done.output
    assert "new class" in quarantine("release", f"{photos}/loose.png", "--label", " bird ", "--reason", "-").output
    [first, second] = releases.read(refit_home / "ingest/pets.releases.jsonl")
    assert (first.listed_label, first.label, first.reason) == ("dog", "dog", "I looked")
    assert (second.listed_label, second.label) == (None, "bird")

    run = ingest("second", photos)
    past = history.read(run.path / "data/manifest", run.path / "data/quarantine")
    new = {row["uri"]: (row["label"], row["notes"]) for row in past.accepted["0002"].to_pylist()}
    assert new == {f"{photos}/dog/also.png": ("dog", ["released"]), f"{photos}/loose.png": ("bird", ["released"])}
    assert files.read_json(run.path / "metrics/ingest.json")["quarantined"]["label-conflict"] == 1
    loser = quarantine("show", f"{photos}/cat/cat-0.png").output
    assert f"decided: {photos}/dog/also.png was released as dog" in loser


@pytest.mark.parametrize(
    ("name", "label", "status", "words"),
    [
        ("cat/bomb [bold].png", "cat", 65, "raise ingest.max_pixels"),
        ("cat/copy.png", "dog", 65, "its copy is in the dataset"),
        ("cat/cat-2.png", "dog", 65, "not in quarantine"),
        ("loose.png", "  ", 78, "name of a class"),
    ],
)
@pytest.mark.usefixtures("ingested")
def test_what_no_label_can_mend_is_not_released(
    quarantine: Quarantine, photos: Path, name: str, label: str, status: int, words: str
) -> None:
    done = quarantine("release", f"{photos}/{name}", "--label", label, "--reason", "x")
    assert (done.exit_code, words in done.output) == (status, True), done.output
    assert not releases.path("pets").exists()


def test_without_a_run_it_says_what_to_do(quarantine: Quarantine) -> None:
    done = quarantine("list", "--model", "pets")
    assert (done.exit_code, "refit run --source" in done.output) == (65, True)
