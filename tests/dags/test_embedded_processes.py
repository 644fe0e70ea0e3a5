"""How the processes of the local Airflow are found again: by what they are, not by what the clock says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from embedded import processes, server
from tests.servers import running


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[Path]:
    """A folder with the record of four processes that live."""
    folder = tmp_path / "airflow"
    folder.mkdir()
    command = [sys.executable, "-c", "import time; time.sleep(120)"]
    started = {name: processes.spawn(command, folder / f"{name}.log", {}) for name in server.PROCESSES}
    processes.record(folder, "http://127.0.0.1:1", started)
    yield folder
    for process in started.values():
        process.kill()
        process.wait()


@pytest.mark.skipif(not psutil.LINUX, reason="elsewhere psutil's times do not change with the clock")
def test_they_are_found_after_the_clock_was_set(airflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a laptop's sleep, or a virtual machine's."""
    before = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: before + 3600)
    state = processes.recorded(airflow)
    assert state is not None
    assert len(processes.alive(state)) == 4
    assert len(processes.belonging(airflow)) == 4


def test_nothing_of_before_a_restart_is_theirs(airflow: Path) -> None:
    state = processes.recorded(airflow)
    assert state is not None
    state["boot"] = "another"
    for entry in state["processes"]:
        entry["pid"] = 2**22 + 1  # above the kernel's limit: whose process has ended, but maybe not its children
    (airflow / "processes.json").write_text(json.dumps(state))
    assert processes.belonging(airflow) == []


def test_what_lives_may_answer_late(airflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training has all processors, say; a second start must not end it."""

    def another(*_: object) -> None:
        raise AssertionError("a second Airflow was started")

    monkeypatch.setattr(server, "_start", another)
    answers = iter([503, 503, 200])

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = ("metadatabase", "scheduler", "dag_processor")
            body = json.dumps({part: {"status": "healthy"} for part in parts}).encode()
            self.send_response(next(answers))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
            pass

    with running(HTTPServer(("127.0.0.1", 0), Health)) as health:
        state = processes.recorded(airflow)
        assert state is not None
        url = f"http://127.0.0.1:{health.server_port}"
        (airflow / "processes.json").write_text(json.dumps({**state, "url": url}))
        assert server.start(airflow.parent).url == url
    assert len(processes.belonging(airflow)) == 4
