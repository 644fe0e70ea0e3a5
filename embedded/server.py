"""Airflow on this machine, without Docker: SQLite, the local executor and four processes on 127.0.0.1.

Not `airflow standalone`, which listens on all interfaces and leaves its children behind when it is ended. Everything
lies in `$REFIT_HOME/airflow`. This is for a laptop, the demo and the tests, not for production; with a `Deployment`,
tests put it on the databases and executors of production.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from embedded import config
from embedded.client import Client
from embedded.config import HOST, USER
from embedded.processes import alive, belonging, end, exit_status, record, recorded, spawn

ROOT = Path(__file__).resolve().parent.parent
POOLS = {"gpu": 1}  # one slot: training parts run one after the other
PROCESSES = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
START_SECONDS = 240.0  # 12 are usual
BUSY_SECONDS = 60.0  # what lives may answer late, on a machine that trains or has just woken up
LOG_LINES = 15


class ServerError(Exception):
    """Airflow cannot be started or used; the text says what to look at."""


@dataclass(frozen=True)
class Server:
    """A running Airflow."""

    home: Path
    url: str
    password: str

    def client(self) -> Client:
        return Client(self.url, USER, self.password)


@dataclass(frozen=True)
class Deployment:
    """What differs from the local Airflow."""

    settings: config.Sections = field(default_factory=dict)
    processes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # name -> arguments of `airflow`, beside ours
    prepare: Sequence[Sequence[str]] = ()  # commands to run once, after the database was created


def refit_home() -> Path:
    """$REFIT_HOME, or .refit in the current directory."""
    return Path(os.environ.get("REFIT_HOME") or ".refit").absolute()


def start(home: Path, *, dags: Path = ROOT / "dags", deployment: Deployment | None = None) -> Server:
    """Start Airflow for the `REFIT_HOME` at `home`, or return the one that runs there already.

    Raises `ServerError` with the end of the log if a process dies or the whole takes too long; nothing is left running.
    """
    airflow = home / "airflow"
    airflow.mkdir(parents=True, exist_ok=True)
    with _exclusive(airflow):
        deadline = time.monotonic() + BUSY_SECONDS
        while server := _living(home):
            if _healthy(server.url):
                return server
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        end(airflow)  # what a killed start or a crash left
        try:
            return _start(home, airflow, dags, deployment or Deployment())
        except BaseException:
            end(airflow)
            raise


def running(home: Path) -> Server | None:
    """The server of `home` if its four processes live and its API answers."""
    server = _living(home)
    return server if server and _healthy(server.url) else None


def _living(home: Path) -> Server | None:
    airflow = home / "airflow"
    state = recorded(airflow)
    if state is None or len(alive(state)) < len(PROCESSES):
        return None
    return Server(airflow, state["url"], config.password_of(airflow))


def stop(home: Path) -> bool:
    """End every process of the server of `home`, tasks included. True if there was any."""
    airflow = home / "airflow"
    if not airflow.is_dir():
        return False
    with _exclusive(airflow):
        return end(airflow)


def processes(home: Path) -> list[psutil.Process]:
    """Everything that lives and was started by the server of `home`, tasks and their children included."""
    return belonging(home / "airflow")


def _start(home: Path, airflow: Path, dags: Path, deployment: Deployment) -> Server:
    port = config.free_port()
    url = f"http://{HOST}:{port}"
    config.write(airflow, dags, port, url, deployment.settings)
    password = config.password_of(airflow)
    environment = config.environment_of(home, airflow)
    _prepare(airflow, environment, deployment.prepare)

    started = {}
    for name, arguments in {**PROCESSES, **deployment.processes}.items():
        # The triggerer knows no DAG folder, and has to import our watchers and callbacks from there.
        own = config.importing(environment, dags) if name == "triggerer" else environment
        started[name] = spawn([sys.executable, "-m", "airflow", *arguments], airflow / f"{name}.log", own)
        record(airflow, url, started)

    server = Server(airflow, url, password)
    deadline = time.monotonic() + START_SECONDS
    while not _healthy(url):
        for name, process in started.items():
            if (status := exit_status(process)) is not None:
                raise ServerError(f"Airflow's {name} ended with status {status}.\n{_log_end(airflow, name)}")
        if time.monotonic() > deadline:
            raise ServerError(
                f"Airflow did not answer at {url} within {START_SECONDS:.0f} s.\n{_log_end(airflow, 'api-server')}"
            )
        time.sleep(0.2)
    with server.client() as client:
        for pool, slots in POOLS.items():
            client.ensure_pool(pool, slots)
    return server


def _healthy(url: str) -> bool:
    """Whether the API answers and the scheduler and the DAG processor have reported to it."""
    try:
        answer = httpx.get(f"{url}/api/v2/monitor/health", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    if answer.status_code != httpx.codes.OK:
        return False
    health = answer.json()
    return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def _prepare(airflow: Path, environment: dict[str, str], more: Sequence[Sequence[str]]) -> None:
    """Create or upgrade the database, once per version of Airflow: it takes as long as all else together."""
    stamp = airflow / "migrated"
    version = importlib.metadata.version("apache-airflow")
    if stamp.exists() and stamp.read_text() == version:
        return
    log = airflow / "migrate.log"
    log.write_bytes(b"")
    for command in ([sys.executable, "-m", "airflow", "db", "migrate"], *more):
        with log.open("ab") as stream:
            status = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                check=False,
            ).returncode
        if status:
            raise ServerError(
                f"Airflow could not create its database (status {status}).\n{_log_end(airflow, 'migrate')}"
            )
    stamp.write_text(version)


@contextlib.contextmanager
def _exclusive(airflow: Path) -> Iterator[None]:
    """One start or stop at a time."""
    with (airflow / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _log_end(airflow: Path, name: str) -> str:
    path = airflow / f"{name}.log"
    lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join([f"The end of {path}:", *(f"  {line}" for line in lines)])
