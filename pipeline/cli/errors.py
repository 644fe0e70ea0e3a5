"""How a command ends when something is wrong: one line and an exit status, no traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import typer
from rich.console import Console

from pipeline.cli.text import plain
from pipeline.errors import RefitError
from pipeline.processes import outlast
from pipeline.settings import DRIVER
from pipeline.stage import explain

STOP_WITH_STDIN = "REFIT_STOP_WITH_STDIN"
GRACE_SECONDS = 20
CHILDREN_SECONDS = 15  # less, so that what follows their end has its time, too
EXIT_NOTHING_NEW = 99  # no failure: schedulers skip what would follow


@contextmanager
def clear_errors() -> Iterator[None]:
    """One line for what a user can mend; SIGTERM ends our children, then us, as a terminal's Ctrl-C does."""
    signal.signal(signal.SIGTERM, _terminated)
    if os.environ.pop(STOP_WITH_STDIN, None):  # not for our children
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    os.environ[DRIVER] = str(os.getpid())
    # Stages are started as `python -m …` and must get this interpreter, also when its environment is not active.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        yield
    except RefitError as error:
        _fail(error)
    except OSError as error:
        if (known := explain(error)) is None:
            raise
        _fail(known)
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped. The same command continues this run.")
        raise typer.Exit(130) from None


def _stop_with_stdin() -> None:
    """End this process when standard input does: whoever started it holds the other end, and has died.

    A scheduler's worker that is killed with SIGKILL stops nothing, and its successor would train beside us on one GPU.
    """
    while os.read(sys.stdin.fileno(), 1 << 12):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    _send(signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _terminated(number: int, frame: object) -> None:
    """A stage uses the time to write what it has; it would be killed if we ended before it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut off what the first one has begun
    outlast(_send(signal.SIGTERM), CHILDREN_SECONDS)
    _send(signal.SIGKILL)
    signal.signal(signal.SIGTERM, _terminated)
    raise SystemExit(128 + number)


def _send(number: int) -> list[psutil.Process]:
    """To all our descendants. One may end meanwhile, as they do when another of them has."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.Error):
            child.send_signal(number)
    return children


def _fail(error: RefitError) -> None:
    if not error.shown:
        print(f"error: {plain(error.problem)} Fix: {plain(error.fix)}", file=sys.stderr)
    raise typer.Exit(error.exit_status)
