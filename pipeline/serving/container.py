"""TensorFlow Serving in a container that can do nothing but serve, and is gone afterwards.

The port is one that Docker chooses, on 127.0.0.1; the model is mounted read-only, and so is the container's own file
system but for /tmp; it has no capabilities and bounded memory and processes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pipeline.training import termination

MODEL = "candidate"  # its name in the container
LABEL = "refit.serve"  # says whose container it is
_REST_PORT = 8501
_MEMORY = "4g"
_PROCESSES = 512  # TensorFlow Serving starts several threads a core
_CALL_SECONDS = 60.0  # of the docker command; a daemon that hangs must not hold up the run
_PULL_SECONDS = 900.0
_LOG_LINES = 3


class Unavailable(Exception):
    """There is no Docker here, or not this image: nothing is said about the model. The text is a sentence."""


@dataclass(frozen=True)
class Server:
    name: str
    port: int  # of REST, on 127.0.0.1

    def alive(self) -> bool:
        done = _docker("inspect", "--format", "{{.State.Running}}", self.name)
        return done.returncode == 0 and done.stdout.strip() == "true"

    def last_words(self) -> str:
        done = _docker("logs", "--tail", str(_LOG_LINES), self.name)
        return " ".join((done.stdout + done.stderr).split())[-300:]


def check(image: str, *, pull: bool) -> None:
    """Raises `Unavailable` without a Docker daemon, or without the image if it may not be pulled."""
    done = _docker("version", "--format", "{{.Server.Version}}")
    if done.returncode:
        raise Unavailable(f"Docker's daemon does not answer: {_line(done)}")
    if _docker("image", "inspect", "--format", "{{.Id}}", image).returncode == 0:
        return
    if not pull:
        raise Unavailable(f"The image {image} is not here, and serve.pull is false.")
    done = _docker("pull", "--quiet", image, limit=_PULL_SECONDS)
    if done.returncode:
        raise Unavailable(f"The image {image} cannot be pulled: {_line(done)}")


@contextmanager
def serving(image: str, saved_model: Path, *, owner: Path) -> Iterator[Server]:
    """Serve `saved_model` as version 1 of `MODEL` inside; the container is removed however this ends.

    What an earlier process of the same `owner`, a folder, left behind when it was killed is removed first.

    Raises `Unavailable` if Docker cannot start the container.
    """
    label = f"{LABEL}={hashlib.sha256(str(owner).encode()).hexdigest()[:16]}"
    left = _docker("ps", "--all", "--quiet", "--filter", f"label={label}").stdout.split()
    if left:
        _docker("rm", "--force", *left)
    name = f"refit-serve-{uuid.uuid4().hex[:12]}"
    with termination.handled(_end):
        try:
            done = _docker("run", *_options(name, label, saved_model), image)
            if done.returncode:
                raise Unavailable(f"Docker cannot start {image}: {_line(done)}")
            yield Server(name, _port(name))
        finally:
            _docker("rm", "--force", "--volumes", name)


def _options(name: str, label: str, saved_model: Path) -> list[str]:
    return [
        "--detach",
        *("--name", name, "--label", label),
        *("--publish", f"127.0.0.1::{_REST_PORT}"),
        *("--mount", f"type=bind,source={saved_model.absolute()},target=/models/{MODEL}/1,readonly"),
        *("--env", f"MODEL_NAME={MODEL}"),
        *("--user", f"{os.getuid()}:{os.getgid()}"),  # without capabilities not even root reads others' files
        *("--read-only", "--tmpfs", "/tmp"),  # noqa: S108  # the container's
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--memory", _MEMORY, "--pids-limit", str(_PROCESSES)),
        *("--pull", "never"),
    ]


def _port(name: str) -> int:
    """Docker's choice. Raises `Unavailable` if the container has none, because it ended at once."""
    done = _docker("port", name, str(_REST_PORT))
    lines = done.stdout.split()
    if done.returncode or not lines:
        raise Unavailable(f"The container got no port: {_line(done)}")
    return int(lines[0].rpartition(":")[2])


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM, which a scheduler ends us with, unwinds the stack as Ctrl-C does, so that cleaning up takes place."""
    raise SystemExit(128 + number)


def _docker(*arguments: str, limit: float = _CALL_SECONDS) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = ["docker", *arguments]  # the user's PATH says which
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", "there is no docker command")
    except OSError as error:
        return subprocess.CompletedProcess(command, 126, "", str(error))
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer in {limit:.0f} seconds")


def _line(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"{said[-1] if said else f'status {done.returncode}':.300}"
