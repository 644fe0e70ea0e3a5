"""Locks on files. The system lets go of one when its holder ends, however that ends; a note with a number of a process
would have to be believed, though numbers are given away again, clocks are set and other machines have their own."""

from __future__ import annotations

import errno
import fcntl
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.errors import RefitError, TransientError


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file to lock, made if there is none; leaving the block lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:  # NFS shares a lock only among those who may read, and reserves it for a writer
        yield stream


@contextmanager
def held(path: Path, *, shared: bool = False, seconds: float = math.inf) -> Iterator[bool]:
    """Hold the lock of that file for the block; False, and not held, if another still has it after `seconds`."""
    with opened(path) as stream:
        yield lock(stream, shared=shared, seconds=seconds)


def lock(stream: IO[Any], *, shared: bool = False, seconds: float = math.inf) -> bool:
    """Take the lock, in place of the one that `stream` has if any; False if another still has it after `seconds`.

    Raises `RefitError` where the file system has no locks (DVC does not work on such a one either), `TransientError`
    where it has none just now, as while its server starts.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + seconds
    while not _flock(stream, kind if seconds == math.inf else kind | fcntl.LOCK_NB):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def _flock(stream: IO[Any], operation: int) -> bool:
    try:
        fcntl.flock(stream, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        problem = f"Expected a file system with locks, but {stream.name} cannot be locked ({error.strerror})."
        if error.errno in {errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}:
            fix = "put REFIT_HOME on one that has them (flock), or mount this one with them"
            raise RefitError(problem, fix=fix) from error
        raise TransientError(problem, fix="check its server, then run again") from error
    return True
