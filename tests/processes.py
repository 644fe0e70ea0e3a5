"""The end of processes that a test did not start itself."""

from __future__ import annotations

import contextlib
import time

import psutil


def over(process: psutil.Process) -> bool:
    """Whether it has ended. Who adopted it may take a while to ask for its status; till then it is a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


def wait_until_over(pid: int, seconds: float) -> None:
    """Raises `TimeoutError` if it lives on."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while not over(process):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Process {pid} has not ended within {seconds} s.")
            time.sleep(0.05)
