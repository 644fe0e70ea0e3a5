"""The fresh process: what becomes of it is a finding. What it finds out: test_rehearsing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.serving import process
from pipeline.serving.process import Job

IMAGES = np.zeros((1, 4, 4, 3), np.uint8)
JOB = Job("nowhere", "cpu", answers=True, batches=(1,), calls=1, seconds=1.0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import time; time.sleep(60)", "not answered after 1 seconds"),
        ("import os; os.abort()", "ended by SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
        ("raise ValueError('no such op: FancyConv')", "status 1: ValueError: no such op: FancyConv"),
        ("raise SystemExit(3)", "status 3: it said nothing"),
        ("pass", "left no answers"),
        ("import sys; open(sys.argv[1] + '/found.json', 'w').write('{')", "left no answers"),
        ("import sys; open(sys.argv[1] + '/found.json', 'w').write('{}')", "left no answers"),
    ],
    ids=["hangs", "aborts", "is killed", "raises", "exits", "says nothing", "half a file", "leaves figures out"],
)
def test_a_process_that_fails_is_a_sentence(tmp_path: Path, code: str, words: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)
    found = process.run(JOB, IMAGES, limit=1.0 if "sleep" in code else 30.0, script=script)
    assert isinstance(found, str)
    assert words in found


def test_a_folder_that_is_no_saved_model(tmp_path: Path) -> None:
    found = process.run(Job(str(tmp_path), "cpu", True, (1,), 1, 1.0), IMAGES, limit=60.0)
    assert isinstance(found, str)
    assert "SavedModel file does not exist" in found


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A stage that is killed leaves no process behind that goes on timing."""
    os.mkfifo(tmp_path / "job.json")  # keeps it waiting
    code = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-P', {str(process.SCRIPT)!r}, {str(tmp_path)!r}], stdin=-1); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, _ = psutil.wait_procs([child], timeout=30)
    assert gone
