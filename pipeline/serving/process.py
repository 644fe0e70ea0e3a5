"""A fresh process that serves a SavedModel, within limits. Whatever becomes of it is a finding, never an error."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import files
from pipeline.serving import fresh

SCRIPT = Path(fresh.__file__)


@dataclass(frozen=True)
class Job:
    saved_model: str
    device: Literal["cpu", "gpu"]
    answers: bool  # answer all images through both signatures; otherwise only take the time
    batches: tuple[int, ...]
    calls: int  # timed ones, of each batch size, at most
    seconds: float  # and for so long


@dataclass(frozen=True)
class Found:
    """`by_image` and `by_file` are float32 [N, classes], None if no answers were asked for."""

    load_seconds: float
    peak_memory_mib: float
    latency: dict[str, dict[str, float]]  # batch size to p50_ms, p99_ms, images_per_second, calls
    classes: tuple[str, ...] = ()
    floats_refused: bool | None = None
    by_image: NDArray[np.float32] | None = None
    by_file: NDArray[np.float32] | None = None


def run(job: Job, images: NDArray[np.uint8], *, limit: float, script: Path = SCRIPT) -> Found | str:
    """What the process found out, or why it did not, in a sentence.

    Args:
        images: uint8 [N, S, S, 3], at least one.
        limit: seconds, after which the process is killed.
    """
    with tempfile.TemporaryDirectory(prefix="refit-serve-") as name:
        folder = Path(name)
        files.write_json(folder / "job.json", asdict(job))
        np.save(folder / "images.npy", images)
        problem = _run(folder, limit, script)
        return problem if problem is not None else _read(folder, job)


def _run(folder: Path, limit: float, script: Path) -> str | None:
    # -P: the script's own folder, ours, is not on the path.
    command = [sys.executable, "-P", str(script), str(folder)]
    with (folder / "errors.txt").open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=errors, stderr=errors)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"The process had not answered after {limit:.0f} seconds and was ended."
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
    if status < 0:
        return f"The process was ended by {_signal_name(-status)}, from outside or for want of memory."
    if status:
        said = (folder / "errors.txt").read_text(errors="replace").strip().splitlines()
        return f"The process ended with status {status}: {said[-1] if said else 'it said nothing':.300}"
    return None


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _read(folder: Path, job: Job) -> Found | str:
    try:
        found: dict[str, Any] = json.loads((folder / "found.json").read_text())
        answers = {}
        if job.answers:
            answers = {
                "classes": tuple(found["classes"]),
                "floats_refused": found["floats_refused"],
                "by_image": np.load(folder / "images_answers.npy", allow_pickle=False),
                "by_file": np.load(folder / "encoded_answers.npy", allow_pickle=False),
            }
        return Found(found["load_seconds"], found["peak_memory_mib"], found["latency"], **answers)
    except (OSError, ValueError, KeyError) as error:
        return f"The process left no answers that can be read: {error!r:.300}"
