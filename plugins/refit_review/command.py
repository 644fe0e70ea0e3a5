"""What the command `refit` says, for pages: asked for once in a few seconds, one question at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

REFIT = Path(sys.executable).with_name("refit")  # of this environment, as the tasks use it
_PATIENCE = 30  # seconds for the command
_QUEUE = 5  # seconds for all others who ask meanwhile, lest they take all of the server's threads
_FRESH = 3.0  # seconds for which an answer is given again: a page that many open is asked for once
_answers: dict[tuple[str, ...], tuple[float, str]] = {}
_lock = threading.Lock()


class Unavailable(Exception):
    """The text says why, for people."""


def forget() -> None:
    """Waits for nobody: what is being asked meanwhile ends in the table that is thrown away here."""
    global _answers
    _answers = {}


def ask(*arguments: str) -> Any:
    """The JSON that `refit` prints. Raises `Unavailable`."""
    try:
        return json.loads(text(*arguments))
    except ValueError:
        raise Unavailable("The command refit gave no JSON; are Refit and its plugin of one version?") from None


def text(*arguments: str) -> str:
    """What `refit` prints. Raises `Unavailable`."""
    if not _lock.acquire(timeout=_QUEUE):
        raise Unavailable("The registry is slow, and somebody else is asking it. Try again in a minute.")
    try:
        answers = _answers
        known = answers.get(arguments)
        if known is not None and time.monotonic() - known[0] < _FRESH:
            return known[1]
        found = _run(arguments)
        for key in [key for key, (asked, _) in answers.items() if time.monotonic() - asked > _FRESH]:
            del answers[key]
        answers[arguments] = (time.monotonic(), found)
        return found
    finally:
        _lock.release()


def _run(arguments: tuple[str, ...]) -> str:
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
    return done.stdout
