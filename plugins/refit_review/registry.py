"""What the page of models shows, as the command `refit` tells it: the registry may be a folder or a bucket."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from refit_review import places

REFIT = Path(sys.executable).with_name("refit")  # of this environment, as the tasks use it
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PATIENCE = (
    30  # seconds for the command; others who ask meanwhile wait less, lest they take all of the server's threads
)
_QUEUE = 5  # seconds
_FRESH = 3.0  # seconds for which an answer is given again: a page that many open is asked for once
_answers: dict[tuple[str, ...], tuple[float, Any]] = {}
_lock = threading.Lock()


class Unavailable(Exception):
    """The text says why, for people."""


def names() -> list[str]:
    """Of models that have a run here or a folder in the registry here; newest runs first."""
    found = [str(run.record.get("model")) for run in places.newest()]
    with suppress(OSError):
        found += sorted(path.name for path in (places.home() / "registry").iterdir() if path.is_dir())
    return [name for name in dict.fromkeys(found) if NAME.fullmatch(name)]


def versions(model: str) -> dict[str, Any]:
    """What `refit models list --json` prints. Raises `Unavailable`."""
    return _ask("models", "list", f"--model={model}", "--json")


def version(model: str, number: int) -> dict[str, Any]:
    """What `refit models show --json` prints. Raises `Unavailable`."""
    return _ask("models", "show", str(number), f"--model={model}", "--json")


def forget() -> None:
    with _lock:
        _answers.clear()


def _ask(*arguments: str) -> dict[str, Any]:
    if not _lock.acquire(timeout=_QUEUE):
        raise Unavailable("The registry is slow, and somebody else is asking it. Try again in a minute.")
    try:
        known = _answers.get(arguments)
        if known is not None and time.monotonic() - known[0] < _FRESH:
            return known[1]
        found = _run(arguments)
        for key in [key for key, (asked, _) in _answers.items() if time.monotonic() - asked > _FRESH]:
            del _answers[key]
        _answers[arguments] = (time.monotonic(), found)
        return found
    finally:
        _lock.release()


def _run(arguments: tuple[str, ...]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [str(REFIT), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        raise Unavailable(f"The command refit is not installed beside {sys.executable}.") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"The registry did not answer within {_PATIENCE} s.") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        raise Unavailable(lines[-1].removeprefix("error: ") if lines else "The registry could not be read.")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise Unavailable("The command refit gave no JSON; are Refit and its plugin of one version?") from None
    if not isinstance(found, dict):
        raise Unavailable("The command refit gave no JSON object.")
    return found
