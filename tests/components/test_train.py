from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import files, settings
from tests.pipeline.training import workspace

CHANGES = ["train.input_size=32", "train.views=0", "train.recipe=linear_probe", "train.phases.head.epochs=1"]


def run(folder: Path, part: str, *changes: str) -> subprocess.CompletedProcess[str]:
    params = settings.with_overrides(settings.read_params(settings.code_root() / "params.yaml"), [*CHANGES, *changes])
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-m", "components.train", "--part", part]
    environment = {"PYTHONPATH": str(settings.code_root()), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_it_writes_what_the_graph_declares_and_replaces_an_older_model(tmp_path: Path) -> None:
    workspace.write(tmp_path)
    (tmp_path / "models/fold-0").mkdir(parents=True)
    (tmp_path / "models/fold-0/stale").write_text("from a run before")

    done = run(tmp_path, "fold-0")

    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "models/fold-0").iterdir()) == ["history.json", "model.keras"]
    assert (tmp_path / "logs/fold-0/head").is_dir()
    assert files.read_json(tmp_path / "models/fold-0/history.json")["images"] == {"train": 12, "val": 3, "copies": 0}
    assert "fold-0: 12 training and 3 validation images" in done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("change", "problem", "status"),
    [
        ("train.backbone=resnet5", "did you mean resnet50?", 78),
        ("train.weights=nowhere.weights.h5", "found no file at nowhere.weights.h5", 65),
    ],
    ids=["unknown backbone", "missing weights"],
)
def test_a_wrong_setting_is_one_line_and_leaves_the_older_model(
    tmp_path: Path, change: str, problem: str, status: int
) -> None:
    workspace.write(tmp_path)
    (tmp_path / "models/final").mkdir(parents=True)
    (tmp_path / "models/final/model.keras").write_text("older")

    done = run(tmp_path, "final", change)

    assert done.returncode == status
    assert done.stderr.count("\n") == 1
    assert problem in done.stderr
    assert [path.name for path in (tmp_path / "models").rglob("*")] == ["final", "model.keras"]
