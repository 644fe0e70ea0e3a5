"""The processes of the local Airflow: started, recorded, found again and ended, all of them and no others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from embedded.config import MARK, private

END_SECONDS = 4.0  # after a signal, before the next
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def spawn(command: list[str], log: Path, environment: dict[str, str]) -> psutil.Process:
    """Start a process that may outlive this one, in a session of its own that Ctrl-C does not reach."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        redirections = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        return psutil.Process(os.posix_spawn(command[0], command, environment, file_actions=redirections, setsid=True))
    finally:
        os.close(output)


def exit_status(process: psutil.Process) -> int | None:
    """Of our child; None while it runs."""
    try:
        status: int = process.wait(0)
    except psutil.TimeoutExpired:
        return None
    return status


def record(airflow: Path, url: str, started: dict[str, psutil.Process]) -> None:
    entries = [{"name": name, "pid": process.pid, "created": _created(process)} for name, process in started.items()]
    with private(airflow / "processes.json") as stream:
        json.dump({"url": url, "boot": _boot(), "processes": entries}, stream, indent=2)


def recorded(airflow: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads((airflow / "processes.json").read_text())
    except FileNotFoundError:
        return None
    return state


def alive(state: dict[str, Any]) -> list[psutil.Process]:
    """The recorded processes that live; a process number that was given to another program is not one."""
    found = []
    for entry in state["processes"]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(entry["pid"])
            if _same(process, entry) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _same(process: psutil.Process, entry: dict[str, Any]) -> bool:
    return bool(abs(_created(process) - entry["created"]) < 0.1)


def _created(process: psutil.Process) -> float:
    """In seconds; on Linux since the machine's start, as the time of day changes with the clock."""
    moment = float(process.create_time())
    return moment - psutil.boot_time() if psutil.LINUX else moment


def _before_restart(state: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether the machine was restarted since."""
    return bool(state.get("boot") != _boot() if psutil.LINUX else entry["created"] < psutil.boot_time())


def _boot() -> str | None:
    """Linux's identity of the machine's start."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip() if psutil.LINUX else None


def _sessions(airflow: Path) -> set[int]:
    """The sessions of the recorded processes.

    A number is not given away as long as its session has members, so if it now belongs to a process that was
    created at another time, or the machine was restarted, the session is over.
    """
    state = recorded(airflow)
    sessions = set()
    for entry in state["processes"] if state else []:
        try:
            over = not _same(psutil.Process(entry["pid"]), entry)
        except psutil.NoSuchProcess:
            over = _before_restart(state, entry)
        if not over:
            sessions.add(entry["pid"])
    return sessions


def belonging(airflow: Path) -> list[psutil.Process]:
    """All live processes of this server: those in its sessions, and those that inherited its mark.

    Parent and child links would not do, since a task whose parent was killed belongs to process 1. The mark alone
    would not do, since Airflow's processes overwrite their environment with their title; the sessions alone would
    not, since a task may open its own.
    """
    sessions = _sessions(airflow)
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) in sessions or process.environ().get(MARK) == str(airflow):
                found.append(process)
    return found


def end(airflow: Path) -> bool:
    """SIGTERM, twice, then SIGKILL, until nothing is left. True if there was anything.

    The API goes last, since tasks report their end to it, and the triggerer's child is left to the triggerer, which
    waits ten seconds for a child that was ended before it. What waits for something else ends at the second SIGTERM.
    A stage that is killed can be run again, so long patience gains nothing.
    """
    with _uninterrupted():
        return _end_all(airflow)


def _end_all(airflow: Path) -> bool:
    everything = belonging(airflow)
    state = recorded(airflow)
    pids = {entry["name"]: entry["pid"] for entry in state["processes"]} if state else {}
    last = [
        process
        for process in everything
        if process.pid == pids.get("api-server") or _parent(process) == pids.get("triggerer")
    ]
    _terminate([process for process in everything if process not in last])
    _terminate(belonging(airflow))
    # Until none is left, not once: one may have started another in between.
    while remaining := belonging(airflow):
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(remaining, timeout=1)
    (airflow / "processes.json").unlink(missing_ok=True)
    return bool(everything)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C, from someone impatient, must not leave half of the processes running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None


def _terminate(found: list[psutil.Process]) -> None:
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(found, timeout=END_SECONDS)
