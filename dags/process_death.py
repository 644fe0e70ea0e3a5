"""A task's process ends with the process that supervises it."""

from __future__ import annotations

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, which Airflow does not see to.

    A task whose supervisor (a worker, or the worker's child) was ended by SIGKILL works on, unseen, while the scheduler
    lets it run again elsewhere: two trainings on one GPU. Only Linux can do this.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
