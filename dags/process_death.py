"""A task's process ends with the process that supervises it, and what the task has started with the task.

As a program, `process_death.py COMMAND ARGUMENT…` becomes a command that ends when whoever started it does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil

PR_SET_PDEATHSIG = 1  # prctl(2)
GRACE_SECONDS = 20


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, which Airflow does not see to.

    A task whose supervisor (a worker, or the worker's child) was ended by SIGKILL works on, unseen, while the scheduler
    lets it run again elsewhere: two trainings on one GPU. Only Linux can do this.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def stopped_on_error(process: subprocess.Popen[str]) -> Iterator[None]:
    """As `with process`, which closes its pipes and waits for it. After a timeout neither comes to an end before the
    process is dead, if a thread reads a pipe or the process hangs."""
    with process:
        try:
            yield
        except BaseException:
            stop(process)
            raise


def stop(process: subprocess.Popen[str]) -> None:
    """SIGTERM, and after `GRACE_SECONDS` SIGKILL.

    Its children go with it: one that lives on holds the pipes open, and whoever reads them waits for the end of file.
    """
    if process.poll() is not None:
        return
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


if __name__ == "__main__":
    end_with_parent()  # holds across exec
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted
