"""What every stage process does alike: one clear line and a meaningful exit status for each kind of failure."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from pipeline import files, settings
from pipeline.errors import RefitError, TransientError

FAILURE = "failure.json"
DONE = "done"  # folder with an empty file for each stage that is up to date in this run
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def run(main: Callable[[], None]) -> None:
    """Call `main`; a known failure ends the process with one line on stderr, an unknown one with its traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if (pid := settings.driver()) is not None:
        threading.Thread(target=_end_with, args=(pid,), daemon=True).start()
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None  # whoever started the stage says what that means
    except RefitError as error:
        fail(error)
    except OSError as error:
        if (known := explain(error)) is None:
            raise
        fail(known)


def _end_with(pid: int) -> None:
    """End this process when another does: the `refit` that had the stage started, through DVC and maybe a shell.

    One that was killed, for want of memory say, is run again, on another machine perhaps, where nobody sees that its
    stage still works in the same run. What is on the same machine, `refit` ends itself before it begins.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait()
    os.kill(os.getpid(), signal.SIGKILL)


def fail(error: RefitError) -> None:
    """Print the one line, leave it in failure.json for the report, and exit."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # on a full disk the line on stderr has to do
        record_failure(Path.cwd(), error)
    raise SystemExit(error.exit_status)


def record_failure(run: Path, error: RefitError) -> None:
    content = {"problem": error.problem, "fix": error.fix, "exit_status": error.exit_status}
    files.write_json(run / FAILURE, content)


def explain(error: OSError) -> RefitError | None:
    """The operating system's refusals that a user can do something about, in words; None for all others."""
    place = error.filename or Path.cwd()
    # shutil.Error gathers the errors of many files as text and has no number of its own.
    gathered = isinstance(error, shutil.Error) and any(f"[Errno {number}]" in str(error) for number in _NO_SPACE)
    if gathered or error.errno in _NO_SPACE:
        return TransientError(
            f"No space is left to write {place}.", fix="free disk space or set REFIT_HOME to another disk"
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return RefitError(
            f"Not allowed to use {place} ({error.strerror}).",
            fix="check its owner and mode, or set REFIT_HOME elsewhere",
        )
    return None
