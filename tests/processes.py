"""The end of processes that a test did not start itself."""

from __future__ import annotations

import psutil

from pipeline.processes import outlast


def wait_until_over(pid: int, seconds: float) -> None:
    """Raises `TimeoutError` if it lives on."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    if outlast([process], seconds):
        raise TimeoutError(f"Process {pid} has not ended within {seconds} s.")
