"""The local Airflow for real: started, used for whole retrainings of a tiny data set, and stopped."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from rich.console import Console

from embedded import server
from embedded.client import Client
from embedded.processes import alive, recorded
from embedded.progress import watch

pytestmark = pytest.mark.airflow

COLOURS = {"red": (200, 60, 60), "green": (60, 180, 80), "blue": (50, 70, 210)}
# The smallest job that is still the whole job.
SETTINGS = [
    "train.parts=[fold-0, fold-1, final]",
    "train.input_size=32",
    "train.views=0",
    "train.recipe=linear_probe",
    "train.phases.head.epochs=2",
    "evaluate.resamples=100",
    "gate.min_accuracy=0.0",
    "gate.min_balanced_accuracy=0.0",
    "gate.min_test_images=1",
    "gate.max_fold_spread=1.0",
    "promote.model=colours",
]


def draw(source: Path, numbers: range) -> None:
    """Noisy images of 32×32 pixels whose colour tells the class."""
    for label, colour in COLOURS.items():
        (source / label).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            noise = np.random.default_rng([number, *colour]).normal(0, 40, (32, 32, 3))
            pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(source / label / f"{number:03d}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refit")


@pytest.fixture(scope="module")
def airflow(home: Path) -> Iterator[server.Server]:
    started = server.start(home)
    try:
        yield started
    finally:
        server.stop(home)


@pytest.fixture(scope="module")
def client(airflow: server.Server) -> Iterator[Client]:
    with airflow.client() as client:
        client.unpause("retrain")
        yield client


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("photos")
    draw(source, range(24))
    return source


def retrain(client: Client, params: dict[str, Any]) -> tuple[str, str, dict[str, str], str]:
    """(run id, its state, states of its tasks, what a terminal-less console showed and failed tasks logged)."""
    shown = io.StringIO()
    run_id = client.trigger("retrain", params)
    state, tasks = watch(client, "retrain", run_id, ["start", "ingest"], Console(file=shown, width=100))
    logs = [line for task in tasks if task.state == "failed" for line in client.log("retrain", run_id, task)]
    states = {f"{task.task_id} {task.label}".rstrip(): task.state for task in tasks}
    return run_id, state, states, "\n".join([shown.getvalue(), *logs])


def directory(home: Path, run_id: str) -> Path:
    return home / "runs" / re.sub(r"[^A-Za-z0-9._-]", "_", run_id)


def test_it_listens_on_this_machine_only(airflow: server.Server, home: Path) -> None:
    addresses = set()
    for process in server.processes(home):
        with contextlib.suppress(psutil.NoSuchProcess):  # the DAG processor's children come and go
            found = process.net_connections(kind="inet")
            addresses |= {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


def test_secrets_are_for_the_owner_only(airflow: server.Server) -> None:
    for name in ("airflow.cfg", "secrets.json", "passwords.json", "processes.json"):
        assert (airflow.home / name).stat().st_mode & 0o777 == 0o600
    assert len(json.loads((airflow.home / "secrets.json").read_text())["jwt"]) >= 64


def test_a_second_start_finds_the_first(airflow: server.Server, home: Path) -> None:
    state = recorded(airflow.home)
    assert server.start(home) == airflow
    assert state is not None
    assert recorded(airflow.home) == state
    assert len(alive(state)) == len(server.PROCESSES)


@pytest.mark.timeout(600)
def test_a_whole_retraining(client: Client, home: Path, source: Path) -> None:
    run_id, state, tasks, shown = retrain(client, {"source": str(source), "set": SETTINGS})
    run = directory(home, run_id)
    assert state == "success", shown
    assert {"train fold-0", "train fold-1", "train final", "promote"} <= set(tasks)
    assert set(tasks.values()) == {"success"}
    assert "train fold-1       success" in shown

    assert json.loads((run / "promotion.json").read_text())["version"] == 1
    assert (home / "registry/colours/1/model.keras").is_file()
    assert (run / "report.html").stat().st_size > 0

    # The same again: nothing is new, so nothing is trained and the run is green.
    run_id, state, tasks, shown = retrain(client, {"source": str(source), "set": SETTINGS})
    assert state == "success", shown
    assert tasks.pop("start") == "success"
    assert set(tasks.values()) == {"skipped"}
    assert not (directory(home, run_id) / "promotion.json").exists()


def test_bad_input_fails_at_once_and_says_why(client: Client, tmp_path: Path) -> None:
    params = {"source": str(tmp_path / "nowhere"), "set": ["promote.model=other"]}
    run_id, state, tasks, _ = retrain(client, params)
    assert state == "failed"
    [failed] = [task for task in client.task_instances("retrain", run_id) if task.state == "failed"]
    assert failed.try_number == 1
    log = client.log("retrain", run_id, failed)
    assert any(line.startswith("error: ") and "nowhere" in line and " Fix: " in line for line in log)
    assert tasks["promote"] == "upstream_failed"


def test_an_unknown_setting_fails_the_start(client: Client) -> None:
    _, state, tasks, _ = retrain(client, {"set": ["train.bachbone=x"]})
    assert (state, tasks["start"]) == ("failed", "failed")


def command(process: psutil.Process) -> str:
    """Its command line; empty once it has ended, also while nobody has taken note of that yet (a zombie)."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # ZombieProcess is one
        return ""


def test_stopping_ends_a_running_task_too(client: Client, home: Path, tmp_path: Path) -> None:
    """Last in this file: it stops the server that the tests before share."""
    draw(tmp_path / "photos", range(6))
    client.trigger("retrain", {"source": str(tmp_path / "photos"), "set": ["promote.model=stopped"]})
    deadline = time.monotonic() + 180
    while not any("refit" in command(process) for process in server.processes(home)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    everything = server.processes(home)
    assert server.stop(home)
    assert server.processes(home) == []
    assert [command(process) for process in everything if command(process)] == []
    assert not server.stop(home)


def test_a_process_that_dies_is_explained_and_nothing_stays(tmp_path: Path) -> None:
    airflow = tmp_path / "airflow"
    airflow.mkdir()
    (airflow / "migrated").write_text(importlib.metadata.version("apache-airflow"))  # a lie: there is no database
    with pytest.raises(server.ServerError, match=r"ended with status \d+\.\nThe end of .*\.log:"):
        server.start(tmp_path)
    assert server.processes(tmp_path) == []


def test_a_recorded_number_of_another_process_is_left_alone(tmp_path: Path) -> None:
    airflow = tmp_path / "airflow"
    airflow.mkdir()
    parent = os.getppid()
    record = {"url": "http://127.0.0.1:1", "processes": [{"name": "scheduler", "pid": parent, "created": 1.0}]}
    (airflow / "processes.json").write_text(json.dumps(record))
    assert not server.stop(tmp_path)
    assert psutil.pid_exists(parent)
