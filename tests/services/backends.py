"""PostgreSQL and Redis for a test: programs of Debian's packages, on 127.0.0.1, in folders of their own."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis

from tests.servers import free_ports

SECONDS = 30.0  # for a start or an end


class Service:
    """A program that can be ended, killed and started again on the same data and port."""

    def __init__(self, command: list[str], port: int, answers: Callable[[], object], user: str | None) -> None:
        self.port = port
        self._command, self._answers, self._user = command, answers, user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **_as(self._user),
        )
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self._answers()
                return
            except (psycopg2.OperationalError, redis.exceptions.RedisError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def end(self, number: int = signal.SIGINT) -> None:
        """With SIGQUIT, PostgreSQL breaks off as in a crash, and recovers at the next start."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(SECONDS)
            self._process = None


@contextmanager
def postgres() -> Iterator[tuple[Service, str]]:
    """(service, address for SQLAlchemy); the test is skipped where PostgreSQL is missing."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="refit-postgres-"))
    password = secrets.token_urlsafe(16)
    try:
        (folder / "password").write_text(password)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
        initdb = [str(found[-1].with_name("initdb")), "--pgdata", str(folder / "data"), "--username=airflow"]
        options = ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-locale", "--encoding=UTF8"]
        subprocess.run(
            [*initdb, *options, "--no-sync"],
            check=True,
            capture_output=True,
            cwd="/",
            **_as(user),
        )
        port = free_ports(1)[0]
        # Nothing here has to survive the machine, only the program.
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        dsn = f"host=127.0.0.1 port={port} user=airflow password={password} dbname=postgres connect_timeout=5"
        command = [str(found[-1]), "-D", str(folder / "data"), "-p", str(port), *settings]
        service = Service(command, port, lambda: psycopg2.connect(dsn).close(), user)
        service.start()
        try:
            yield service, f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{port}/postgres"
        finally:
            service.end()
    finally:
        shutil.rmtree(folder)


@contextmanager
def redis_server() -> Iterator[tuple[Service, str]]:
    """(service, address for Celery); the test is skipped where Redis is missing."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed: apt-get install redis-server")
    with tempfile.TemporaryDirectory(prefix="refit-redis-") as folder:
        password, port = secrets.token_urlsafe(16), free_ports(1)[0]
        settings = {"bind": "127.0.0.1", "port": port, "requirepass": password, "dir": folder, "save": '""'}
        (Path(folder) / "redis.conf").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        address = f"redis://:{password}@127.0.0.1:{port}/0"

        def answers() -> None:
            with redis.Redis.from_url(address) as client:
                client.ping()

        service = Service([program, f"{folder}/redis.conf"], port, answers, None)
        service.start()
        try:
            yield service, address
        finally:
            service.end(signal.SIGTERM)


def _as(user: str | None) -> dict[str, Any]:
    """Options of subprocess for a program that runs as another user."""
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
