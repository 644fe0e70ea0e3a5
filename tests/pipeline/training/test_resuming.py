"""Training that is killed for real, and its outcome against that of training that is not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import settings
from pipeline.training.checkpoints import RUNNING, Checkpoint
from tests.pipeline.training import resume_script

pytestmark = pytest.mark.processes
HELD = 1000.0  # seconds between writings: states of tiny epochs are held in memory


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    resume_script.run(folder, folder / "outcome.npz")
    return outcome(folder)


def outcome(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "outcome.npz") as archive:
        return dict(archive)


def start(folder: Path, pause: str, every: float = 0.0) -> subprocess.Popen[str]:
    """The process, when it waits."""
    script = [sys.executable, "-m", "tests.pipeline.training.resume_script"]
    arguments = [str(folder), str(folder / "outcome.npz"), pause, str(every)]
    environment = os.environ | {"PYTHONPATH": str(settings.code_root()), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [*script, *arguments], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    if process.stdout.readline().strip() != "waiting":
        raise AssertionError(process.communicate()[1])
    return process


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("phase", ["head", "last"])
def test_after_sigkill_training_ends_as_if_it_had_not_been_killed(
    tmp_path: Path, phase: str, uninterrupted: dict[str, np.ndarray]
) -> None:
    epoch = random.randrange(6)  # any must do
    process = start(tmp_path, f"{phase} {epoch}")
    process.kill()
    process.communicate()
    assert (tmp_path / "checkpoint" / RUNNING).exists() == (epoch > 0), epoch

    resume_script.run(tmp_path, tmp_path / "outcome.npz")

    assert_same(outcome(tmp_path), uninterrupted)
    assert not (tmp_path / "checkpoint").exists()


def test_sigterm_writes_the_last_epoch_and_says_what_to_do(
    tmp_path: Path, uninterrupted: dict[str, np.ndarray]
) -> None:
    process = start(tmp_path, "last 3", every=HELD)
    process.terminate()
    assert process.stderr is not None
    error = next(line for line in process.stderr if line.startswith("error:"))
    rest = process.communicate()[1]

    assert process.returncode == 75
    assert "told to stop (SIGTERM) in phase last" in error
    assert "run again, it continues at epoch 4 of phase last" in error
    assert "Traceback" not in rest
    checkpoint = Checkpoint(tmp_path / "checkpoint", "same")
    checkpoint.finished(resume_script.problem.network(hidden=8, dropout=0.3).variables)
    running = checkpoint.running("last", 16)
    assert running is not None
    assert running.epochs == 3

    resume_script.run(tmp_path, tmp_path / "outcome.npz")

    assert_same(outcome(tmp_path), uninterrupted)


def test_ctrl_c_keeps_the_last_epoch_too(tmp_path: Path) -> None:
    process = start(tmp_path, "head 2", every=HELD)
    process.send_signal(signal.SIGINT)
    process.communicate()

    running = Checkpoint(tmp_path / "checkpoint", "same").running("head", 16)
    assert running is not None
    assert running.epochs == 2
