"""A run's directory as a repository of DVC, the cache that all runs share, and the room on its disk."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pipeline import locks
from pipeline.errors import DataError, RefitError, TransientError
from pipeline.runs.run import workspaces
from pipeline.settings import refit_home
from pipeline.stage import explain

MINIMUM_FREE_BYTES = 200 << 20  # a model with its optimizer's checkpoints, shards of a small batch, DVC's database


def require_space() -> None:
    """Raises `TransientError` on a disk that is as good as full: better before an hour of work than after it."""
    free = shutil.disk_usage(refit_home()).free
    if free < MINIMUM_FREE_BYTES:
        raise TransientError(
            f"Expected at least {MINIMUM_FREE_BYTES >> 20} MB free at {refit_home()}, found {free >> 20} MB.",
            fix="free disk space or set REFIT_HOME to another disk",
        )


@contextlib.contextmanager
def using_cache() -> Iterator[None]:
    """While a stage runs, what it has put into the cache is in no dvc.lock yet, so nobody may clear the cache of what
    none names. The system ends this with the process, however that ends."""
    with locks.held(_cache_lock(), shared=True):
        yield


@contextlib.contextmanager
def cache_alone() -> Iterator[bool]:
    """Whether no stage works with the cache; if so, none begins to until the block is left."""
    with locks.held(_cache_lock(), seconds=0) as alone:
        yield alone


def _cache_lock() -> Path:
    return refit_home() / "cache" / "in-use.lock"


@contextlib.contextmanager
def _among_living(path: Path) -> Iterator[None]:
    """Forget what DVC has noted of processes that were killed: who comes first into a run knows that nobody else is in.

    DVC goes by the number alone. In containers a next attempt often has the number of the one before, and what that
    held would be busy for good; a note cut off by a full disk could never be read again.
    """
    with locks.opened(path / ".dvc/tmp/in-use.lock") as stream:
        if locks.lock(stream, seconds=0):
            (path / ".dvc/tmp/rwlock").unlink(missing_ok=True)
        locks.lock(stream, shared=True)
        yield


@contextlib.contextmanager
def repository(path: Path) -> Iterator[Any]:
    """DVC's repository object, with the run's directory as the current one and nobody clearing the cache meanwhile.

    DVC's own errors become ours; what a stage said is in failure.json.
    """
    from dvc.exceptions import DvcException  # 0.6 s to import, which `refit --help` need not pay
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # "Running stage …", "Updating lock file …": we say it ourselves
    try:
        # Parts of one run that end together wait for each other: after three seconds DVC would give a training up.
        with (
            using_cache(),
            _among_living(path),
            Repo(str(path), config=_dvc_remote(), _wait_for_lock=True) as repo,
            contextlib.chdir(path),
        ):
            yield repo
    except DvcException as error:
        raise _explain_dvc(path, error) from error
    except sqlite3.OperationalError as error:  # DVC's own notes on files
        if "is full" not in str(error):
            raise
        raise TransientError(
            f"No space is left for DVC's database ({error}).",
            fix="free disk space or set REFIT_HOME to another disk",
        ) from error


def _dvc_remote() -> dict[str, Any] | None:
    if (shared := workspaces()) is None:
        return None
    return {"core": {"remote": "workspaces"}, "remote": {"workspaces": {"url": shared.cache}}}


def _explain_dvc(path: Path, error: BaseException) -> RefitError:
    from dvc.lock import LockError
    from dvc.rwlock import RWLockFileCorruptedError

    last, cause = error, cast(BaseException | None, error)
    while cause is not None:
        if isinstance(cause, OSError) and (known := explain(cause)) is not None:
            return known
        if isinstance(cause, LockError | RWLockFileCorruptedError):
            return TransientError(f"The run {path.name} is busy.", fix="wait for its other stage, then run again")
        exited = re.search(r"exited with (-?\d+)$", str(cause))
        if exited and (number := _signal(int(exited[1]))):
            if number == signal.SIGINT:
                raise KeyboardInterrupt  # DVC ignores it while a stage runs, so only the stage has felt it
            return TransientError(
                f"The stage's process was ended by signal {number}, from outside or for want of memory.",
                fix="run again, it continues there",
            )
        if exited and int(exited[1]) == TransientError.exit_status:
            # On a full disk the stage could not leave failure.json, only say it.
            return TransientError("The stage cannot go on now, as its last line says.", fix="mend that, then run again")
        last, cause = cause, cause.__cause__ or cause.__context__
    return DataError(
        f"DVC stopped with {type(last).__name__}: {last}.",
        fix="mend the cause that the lines above name",
    )


def _signal(status: int) -> int | None:
    """The signal that ended a process: -n from Python, 128 + n from the shell in between. None if none did."""
    return -status if status < 0 else status - 128 if status > 128 else None
