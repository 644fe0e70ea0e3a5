"""How a command ends together with whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.processes import wait_until_over

WAITING = """
import subprocess
from pipeline.cli.errors import clear_errors
with clear_errors():
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    child.wait()
"""


def test_a_command_ends_with_its_standard_input_when_asked_to() -> None:
    """As when SIGKILL ends the worker that holds the other end."""
    environment = {**os.environ, "REFIT_STOP_WITH_STDIN": "1"}
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(15) == 128 + 15
    wait_until_over(child, 10)


def test_a_descendant_that_ends_meanwhile_keeps_no_other_alive() -> None:
    """As when a shell, ended first, takes its child along."""
    listed = """
import psutil
real = psutil.Process.children
ended = subprocess.Popen(["true"])
gone = psutil.Process(ended.pid)
ended.wait()
psutil.Process.children = lambda process, recursive: [gone, *real(process, recursive)]
with clear_errors():"""
    command = [sys.executable, "-c", WAITING.replace("with clear_errors():", listed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.terminate()
        assert process.wait(15) == 128 + 15
    wait_until_over(child, 10)


def test_an_empty_standard_input_alone_ends_nothing() -> None:
    command = [sys.executable, "-c", WAITING.replace('"60"', '"0.3"')]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0
