from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline import files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a stage: a run with the default params and no live model."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copy(ROOT / "pipeline/validation/schema.pbtxt", folder)
    files.write_json(folder / "live.json", {"version": None, "generation": 0, "path": None, "digest": None})
    monkeypatch.chdir(folder)
    return folder
