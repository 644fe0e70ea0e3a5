"""Locks on files. The system lets go of one when its holder ends, however that ends; a note with a number of a process
would have to be believed, though numbers are given away again, clocks are set and other machines have their own."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.errors import RefitError


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file to lock, made if there is none; leaving the block lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:  # NFS shares a lock only among those who may read, and reserves it for a writer
        yield stream


def lock(stream: IO[Any], *, shared: bool = False, wait: bool = True) -> bool:
    """Take the lock, in place of the one that `stream` has if any; False if another has it and we are not to wait.

    Raises `RefitError` where the file system has no locks. DVC does not work on such a one either.
    """
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(stream, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RefitError(
            f"Expected a file system with locks, but {stream.name} cannot be locked ({error.strerror}).",
            fix="put REFIT_HOME on one that has them (flock), or mount this one with them",
        ) from error
    return True
