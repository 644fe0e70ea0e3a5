"""What every stage process does alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import wait_until_over

STAGE = """\
import os, time
from pipeline import stage

stage.run(lambda: (print(os.getpid(), flush=True), time.sleep(60)))
"""


@pytest.mark.parametrize("shell", ["{}", "{}; true"], ids=["shell that gives way", "shell in between"])
def test_a_stage_ends_with_the_refit_that_had_it_started(tmp_path: Path, shell: str) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    command = ["/bin/bash", "-c", shell.format(f"{sys.executable} {tmp_path / 'stage.py'}")]
    refit = f"""
import subprocess
from pipeline.cli.errors import clear_errors
with clear_errors():
    subprocess.run({command!r})
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", refit], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    wait_until_over(pid, 10)
