from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline import files, settings
from pipeline.training import export
from tests.pipeline.training import workspace
from tests.servers import free_ports

pytestmark = pytest.mark.processes

CHANGES = ["train.input_size=32", "train.views=0"]
PROBE = ["train.recipe=linear_probe", "train.phases.head.epochs=1"]

PATIENCE = 240.0  # seconds


def start(folder: Path, part: str, *changes: str, **environment: str) -> subprocess.Popen[str]:
    params = settings.with_overrides(
        settings.read_params(settings.code_root() / "params.yaml"),
        [*CHANGES, *([] if "train.recipe=custom" in changes else PROBE), *changes],
    )
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-m", "components.train", "--part", part]
    plain = {"PYTHONPATH": str(settings.code_root()), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.Popen(command, cwd=folder, env=plain | environment, stderr=subprocess.PIPE, text=True)


def run(folder: Path, part: str, *changes: str) -> subprocess.CompletedProcess[str]:
    process = start(folder, part, *changes)
    _, errors = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, "", errors)


def weights(folder: Path, part: str) -> list[np.ndarray]:
    return export.load(folder / "models" / part / "model.keras").get_weights()


def test_it_writes_what_the_graph_declares_and_replaces_an_older_model(tmp_path: Path) -> None:
    workspace.write(tmp_path)
    (tmp_path / "models/fold-0").mkdir(parents=True)
    (tmp_path / "models/fold-0/stale").write_text("from a run before")

    done = run(tmp_path, "fold-0")

    assert done.returncode == 0, done.stderr
    written = sorted(path.name for path in (tmp_path / "models/fold-0").iterdir())
    assert written == ["card.md", "history.json", "model.keras"]
    assert (tmp_path / "plots/curves/fold-0.csv").is_file()
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
    [line] = [line for line in done.stderr.splitlines() if "error" in line or "Traceback" in line]
    assert problem in line
    assert [path.name for path in (tmp_path / "models").rglob("*")] == ["final", "model.keras"]


def test_training_that_is_told_to_stop_goes_on_to_the_same_model(tmp_path: Path) -> None:
    changes = ("train.recipe=custom", "train.phases={warm: {epochs: 24}, tune: {unfreeze: {top: 1}, epochs: 3}}")
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        workspace.write(tmp_path / name)
    assert run(tmp_path / "whole", "fold-0", *changes).returncode == 0

    process = start(tmp_path / "stopped", "fold-0", *changes)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("warm 1/24"):
            process.send_signal(signal.SIGTERM)
            break
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, errors
    assert not (tmp_path / "stopped/models/fold-0").exists()

    done = run(tmp_path / "stopped", "fold-0", *changes)

    assert done.returncode == 0, done.stderr
    assert "continues at epoch" in done.stderr
    assert not (tmp_path / "stopped/checkpoints/fold-0").exists()
    for one, other in zip(weights(tmp_path / "whole", "fold-0"), weights(tmp_path / "stopped", "fold-0"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_two_workers_train_the_model_that_one_would(tmp_path: Path) -> None:
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
        workspace.write(tmp_path / name)
    # Not AdamW, which makes whole steps of rounding errors in the gradients of dead features; and workers draw which
    # features they drop for their own images.
    same = ("train.phases.head.optimizer=sgd", "train.head.dropout=0.0")
    changes = ("train.batch_size=8", "train.phases.head.epochs=3", *same)
    assert run(tmp_path / "alone", "fold-0", *changes).returncode == 0
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}

    with contextlib.ExitStack() as stack:
        workers = []
        for number in range(2):
            place = {"cluster": cluster, "task": {"type": "worker", "index": number}}
            process = start(tmp_path / "together", "fold-0", *changes, TF_CONFIG=json.dumps(place))
            stack.callback(process.communicate)
            stack.callback(process.kill)
            workers.append(process)
        errors = [process.communicate(timeout=PATIENCE)[1] for process in workers]

    assert [process.returncode for process in workers] == [0, 0], errors
    history = files.read_json(tmp_path / "together/models/fold-0/history.json")
    assert (history["devices"]["workers"], history["devices"]["strategy"]) == (2, "workers")
    assert [path.name for path in (tmp_path / "together/models").iterdir()] == ["fold-0"]
    for one, other in zip(weights(tmp_path / "alone", "fold-0"), weights(tmp_path / "together", "fold-0"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
