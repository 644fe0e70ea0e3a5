"""`refit predict` and `refit export` as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.serving import published
from tests.pipeline.training import tiny

REFIT = Path(sys.executable).with_name("refit")
Refit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def refit(refit_home: Path, tmp_path: Path) -> Refit:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "REFIT_HOME": str(refit_home), "COLUMNS": "200"}
        return subprocess.run(
            [REFIT, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120, check=False
        )

    return call


@pytest.mark.processes
def test_good_files_are_answered_and_bad_ones_end_it_with_65(refit: Refit, tmp_path: Path) -> None:
    published.publish(tmp_path / "content")
    (tmp_path / "in").mkdir()
    for name in ("plain.png", "turned.jpg"):
        (tmp_path / "in" / name).write_bytes(published.kinds()[name])

    done = refit("predict", "in", "--top", "2")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("in/plain.png: ")
    assert len(second.split(",")) == 2
    assert done.stderr == ""

    (tmp_path / "in/cut.png").write_bytes(published.kinds()["plain.png"][:200])
    done = refit("predict", "in", "nowhere.png", "--json", "--version", "live")
    assert done.returncode == 65
    rows = {row["image"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert list(rows) == ["in/cut.png", "in/plain.png", "in/turned.jpg", "nowhere.png"]
    assert rows["in/cut.png"]["error"]["reason"] == "damaged"
    [best] = rows["in/plain.png"]["top"]
    assert best["class"] in tiny.CLASSES
    assert 1 / 3 < best["probability"] <= 1
    assert rows["in/plain.png"]["version"] == 1
    errors = done.stderr.splitlines()
    assert [line.split(":")[1] for line in errors] == [" in/cut.png", " nowhere.png"]
    assert all(line.startswith("error: ") and "Fix: " in line for line in errors)


def test_what_is_not_there_is_said(refit: Refit, tmp_path: Path) -> None:
    done = refit("predict", "a.png")
    assert (done.returncode, "has no live version" in done.stderr) == (65, True)
    done = refit("export", "--form", "keras", "--to", "out.keras", "--version", "7")
    assert done.returncode == 65
    assert "7" in done.stderr
    assert "Traceback" not in done.stderr
    published.publish(tmp_path / "content")
    (tmp_path / "empty").mkdir()
    assert "found no file" in refit("predict", "empty").stderr


@pytest.mark.processes
def test_a_model_is_exported_once(refit: Refit, tmp_path: Path) -> None:
    version = published.publish(tmp_path / "content")
    done = refit("export", "--form", "keras", "--to", "out.keras")
    assert done.returncode == 0, done.stderr
    assert "Version 1 of classifier is at out.keras" in done.stdout
    assert (tmp_path / "out.keras").read_bytes() == (version / "model.keras").read_bytes()
    done = refit("export", "--form", "keras", "--to", "out.keras")
    assert (done.returncode, "nothing is overwritten" in done.stderr) == (78, True)
    assert refit("export", "--form", "exe", "--to", "x").returncode == 2
