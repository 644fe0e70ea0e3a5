"""What every stage process does alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import wait_until_over

STAGE = """\
import os, time
from pipeline import stage

stage.run(lambda: (print(os.getpid(), flush=True), time.sleep(60)))
"""


SAVING = """\
import os, pathlib, signal, sys, time
from pipeline import stage

def save(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1]).touch()
    sys.exit(75)

signal.signal(signal.SIGTERM, save)
stage.run(lambda: (print(os.getpid(), flush=True), time.sleep(60)))
"""


@contextmanager
def started(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A `refit` that has had the command started, and the number of the stage's process."""
    refit = f"""
import subprocess
from pipeline.cli.errors import clear_errors
with clear_errors():
    subprocess.run({command!r})
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", refit], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())


@pytest.mark.parametrize("shell", ["{}", "{}; true"], ids=["shell that gives way", "shell in between"])
def test_a_stage_ends_with_the_refit_that_had_it_started(tmp_path: Path, shell: str) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    with started(["/bin/bash", "-c", shell.format(f"{sys.executable} {tmp_path / 'stage.py'}")]) as (process, pid):
        process.kill()
    wait_until_over(pid, 10)


def test_a_stage_that_is_told_to_stop_writes_what_it_has(tmp_path: Path) -> None:
    """However often it is told."""
    (tmp_path / "stage.py").write_text(SAVING)
    with started([sys.executable, str(tmp_path / "stage.py"), str(tmp_path / "saved")]) as (process, _):
        process.terminate()
        time.sleep(0.3)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
        assert (tmp_path / "saved").exists()
