"""Airflow on this machine, without Docker: SQLite, the local executor and four processes on 127.0.0.1.

Not `airflow standalone`, which listens on all interfaces and leaves its children behind when it is ended. Everything
lies in `$REFIT_HOME/airflow`. For production see docs: this is for a laptop, the demo and the tests.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import fcntl
import importlib.metadata
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from embedded.client import Client

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DEFAULT_PORT = 8080
USER = "admin"
POOLS = {"gpu": 1}  # one slot: training parts run one after the other
PROCESSES = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
MARK = "REFIT_EMBEDDED"  # environment variable that every process of one server inherits; its value is the home
START_SECONDS = 120.0
END_SECONDS = 4.0  # after a signal, before the next
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


def refit_home() -> Path:
    """$REFIT_HOME, or .refit in the current directory."""
    return Path(os.environ.get("REFIT_HOME") or ".refit").absolute()


def start(home: Path, *, dags: Path = ROOT / "dags") -> Server:
    """Start Airflow for the `REFIT_HOME` at `home`, or return the one that runs there already.

    Raises `ServerError` with the end of the log if a process dies or the whole takes too long; nothing is left running.
    """
    airflow = home / "airflow"
    airflow.mkdir(parents=True, exist_ok=True)
    with _exclusive(airflow):
        if server := running(home):
            return server
        _end(airflow)  # what a killed start or a crash left
        try:
            return _start(home, airflow, dags)
        except BaseException:
            _end(airflow)
            raise


def running(home: Path) -> Server | None:
    """The server of `home` if its four processes live and its API answers."""
    airflow = home / "airflow"
    state = _read_state(airflow)
    if state is None or len(_recorded(state)) < len(PROCESSES):
        return None
    server = Server(airflow, state["url"], _password(airflow))
    return server if _healthy(server.url) else None


def stop(home: Path) -> bool:
    """End every process of the server of `home`, tasks included. True if there was any."""
    airflow = home / "airflow"
    if not airflow.is_dir():
        return False
    with _exclusive(airflow):
        return _end(airflow)


def processes(home: Path) -> list[psutil.Process]:
    """Everything that lives and was started by the server of `home`, tasks and their children included."""
    return _belonging(home / "airflow")


def _start(home: Path, airflow: Path, dags: Path) -> Server:
    port = _free_port()
    url = f"http://{HOST}:{port}"
    _write_config(airflow, dags, port, url)
    password = _password(airflow)
    environment = _environment(home, airflow)
    _migrate(airflow, environment)

    started = {}
    for name, arguments in PROCESSES.items():
        started[name] = _spawn([sys.executable, "-m", "airflow", *arguments], airflow / f"{name}.log", environment)
        _write_state(airflow, url, started)

    server = Server(airflow, url, password)
    deadline = time.monotonic() + START_SECONDS
    while not _healthy(url):
        for name, process in started.items():
            if (status := _exit_status(process)) is not None:
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


def _spawn(command: list[str], log: Path, environment: dict[str, str]) -> psutil.Process:
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


def _exit_status(process: psutil.Process) -> int | None:
    """Of our child; None while it runs."""
    try:
        status: int = process.wait(0)
    except psutil.TimeoutExpired:
        return None
    return status


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


def _write_config(airflow: Path, dags: Path, port: int, url: str) -> None:
    keys = _secrets(airflow)
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": dags,
            "plugins_folder": dags.parent / "plugins",
            "executor": "LocalExecutor",
            "parallelism": 4,
            "load_examples": False,
            "fernet_key": keys["fernet"],
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": airflow / "passwords.json",
            # The default asks the name server for this machine's full name, which can take seconds.
            "hostname_callable": "socket.gethostname",
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{airflow / 'airflow.db'}"},
        "api": {
            "host": HOST,
            "port": port,
            "base_url": url,
            "workers": 1,
            "secret_key": keys["session"],
            "instance_name": "Refit",
        },
        "api_auth": {"jwt_secret": keys["jwt"], "jwt_issuer": "refit"},
        "scheduler": {"scheduler_idle_sleep_time": 0.3, "task_instance_heartbeat_timeout": 60},
        # A worker notices only at a heartbeat that its task has ended: with the usual 5 s, four tasks of half a second
        # each filled all workers. As many failures in a row as before take 15 s.
        "workers": {"min_heartbeat_interval": 1, "max_failed_heartbeats": 15},
        "dag_processor": {
            "dag_bundle_storage_path": airflow / "bundles",
            "parsing_processes": 1,
            "min_file_process_interval": 10,
            "refresh_interval": 10,
            "print_stats_interval": 0,
        },
        "logging": {
            "base_log_folder": airflow / "logs",
            "dag_processor_child_process_log_directory": airflow / "logs" / "dag_processor",
            "uvicorn_logging_level": "WARNING",
            "colored_console_log": False,
        },
    }
    config = configparser.ConfigParser(interpolation=None)
    for section, options in sections.items():
        # Airflow interpolates, so a percent sign in a path has to be doubled.
        config[section] = {key: str(value).replace("%", "%%") for key, value in options.items()}
    with _private(airflow / "airflow.cfg") as stream:
        config.write(stream)


def _secrets(airflow: Path) -> dict[str, str]:
    """Keys of this server, drawn once: the Fernet key must stay, or stored connections become unreadable."""
    path = airflow / "secrets.json"
    if not path.exists():
        keys = {
            "jwt": secrets.token_urlsafe(96),
            "session": secrets.token_urlsafe(48),
            "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        }
        with _private(path) as stream:
            json.dump(keys, stream)
    content: dict[str, str] = json.loads(path.read_text())
    return content


def _password(airflow: Path) -> str:
    path = airflow / "passwords.json"
    if not path.exists():
        with _private(path) as stream:
            json.dump({USER: secrets.token_urlsafe(12)}, stream)
    return str(json.loads(path.read_text())[USER])


@contextlib.contextmanager
def _private(path: Path) -> Iterator[Any]:
    """A text stream whose file appears whole at `path`, readable by its owner only."""
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        yield stream
    temporary.replace(path)


def _environment(home: Path, airflow: Path) -> dict[str, str]:
    """This process's environment without any Airflow setting, which would go before airflow.cfg."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    direct = ",".join(filter(None, [inherited.get("NO_PROXY") or inherited.get("no_proxy"), HOST, "localhost"]))
    return {
        **inherited,
        "AIRFLOW_HOME": str(airflow),
        "REFIT_HOME": str(home),
        MARK: str(airflow),
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


def _migrate(airflow: Path, environment: dict[str, str]) -> None:
    """Create or upgrade the database, once per version of Airflow: it takes as long as all else together."""
    stamp = airflow / "migrated"
    version = importlib.metadata.version("apache-airflow")
    if stamp.exists() and stamp.read_text() == version:
        return
    log = airflow / "migrate.log"
    with log.open("wb") as stream:
        status = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            check=False,
        ).returncode
    if status:
        raise ServerError(f"Airflow could not create its database (status {status}).\n{_log_end(airflow, 'migrate')}")
    stamp.write_text(version)


def _free_port() -> int:
    """The usual port, or a free one where it is taken."""
    for port in (DEFAULT_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return int(probe.getsockname()[1])
    raise ServerError(f"No free port on {HOST}.")


def _write_state(airflow: Path, url: str, started: dict[str, psutil.Process]) -> None:
    recorded = [
        {"name": name, "pid": process.pid, "created": process.create_time()} for name, process in started.items()
    ]
    with _private(airflow / "processes.json") as stream:
        json.dump({"url": url, "processes": recorded}, stream, indent=2)


def _read_state(airflow: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads((airflow / "processes.json").read_text())
    except FileNotFoundError:
        return None
    return state


def _recorded(state: dict[str, Any]) -> list[psutil.Process]:
    """The recorded processes that live; a process number that was given to another program is not one."""
    alive = []
    for entry in state["processes"]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(entry["pid"])
            if _same(process, entry) and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


def _same(process: psutil.Process, entry: dict[str, Any]) -> bool:
    return bool(abs(process.create_time() - entry["created"]) < 0.1)


def _sessions(airflow: Path) -> set[int]:
    """The sessions of the recorded processes.

    A number is not given away as long as its session has members, so if it now belongs to a process that was
    created at another time, or the machine was restarted, the session is over.
    """
    state = _read_state(airflow)
    sessions = set()
    for entry in state["processes"] if state else []:
        try:
            over = not _same(psutil.Process(entry["pid"]), entry)
        except psutil.NoSuchProcess:
            over = entry["created"] < psutil.boot_time()
        if not over:
            sessions.add(entry["pid"])
    return sessions


def _belonging(airflow: Path) -> list[psutil.Process]:
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


def _end(airflow: Path) -> bool:
    """SIGTERM, twice, then SIGKILL, until nothing is left. True if there was anything.

    The API goes last, since tasks report their end to it, and the triggerer's child is left to the triggerer, which
    waits ten seconds for a child that was ended before it. What waits for something else ends at the second SIGTERM.
    A stage that is killed can be run again, so long patience gains nothing.
    """
    everything = _belonging(airflow)
    state = _read_state(airflow)
    pids = {entry["name"]: entry["pid"] for entry in state["processes"]} if state else {}
    last = [
        process
        for process in everything
        if process.pid == pids.get("api-server") or _parent(process) == pids.get("triggerer")
    ]
    _terminate([process for process in everything if process not in last])
    _terminate(_belonging(airflow))
    # Until none is left, not once: one may have started another in between.
    while remaining := _belonging(airflow):
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(remaining, timeout=1)
    (airflow / "processes.json").unlink(missing_ok=True)
    return bool(everything)


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
