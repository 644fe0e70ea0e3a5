"""The end of processes that we may have no right to wait for, since we are not their parent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import psutil


def over(process: psutil.Process) -> bool:
    """Whether it has ended. Until its parent asks for its status, which may be never, it is a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


def outlast(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still live when all have ended or `seconds` have passed. Takes no status from a parent of theirs."""
    deadline = time.monotonic() + seconds
    while (living := [process for process in processes if not over(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return living
