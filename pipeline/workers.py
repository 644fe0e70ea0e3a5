"""Worker processes for image work: fresh ones, which end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from pipeline.errors import TransientError


@contextmanager
def pool(processes: int) -> Iterator[Executor | None]:
    """A pool of `processes`, or None for one: starting a pool costs each worker 0.8 s.

    Raises `TransientError` when a worker is killed.
    """
    if processes == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent) as executor:
            yield executor
    except BrokenProcessPool:
        raise TransientError(
            "A worker process was killed, most likely for want of memory.",
            fix="run again with fewer processes: --set execution.workers=1",
        ) from None


def _end_with_parent() -> None:
    """Left alone, a worker whose parent is killed waits for work forever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
