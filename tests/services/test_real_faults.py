"""Faults with the real `refit` at work: what it had begun is done again, and one version comes of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from embedded import server
from embedded.client import ApiError, Client
from embedded.processes import recorded
from tests.dags.test_embedded import SETTINGS, directory, draw
from tests.processes import wait_until_over
from tests.services import deployments, standin
from tests.services.backends import Service
from tests.services.test_faults import until

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

SCHEDULER = {
    "scheduler_idle_sleep_time": 0.3,
    "task_instance_heartbeat_timeout": 20,
    "task_instance_heartbeat_timeout_detection_interval": 3,
    "task_queued_timeout": 60,
    "task_queued_timeout_check_interval": 5,
}


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    """The DAGs on the real graph, with retries after seconds."""
    folder = standin.project(tmp_path / "project")
    shutil.copyfile(standin.ROOT / "dvc.yaml", folder.parent / "dvc.yaml")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw(tmp_path / "photos", range(24))
    return tmp_path / "photos"


def component(home: Path, name: str) -> list[psutil.Process]:
    """The processes of a stage itself that work in a run of `home`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if f"components.{name}" in process.cmdline() and process.cwd().startswith(str(home)):
                found.append(process)
    return found


def workers(home: Path) -> list[psutil.Process]:
    state = recorded(home / "airflow")
    entries = state["processes"] if state else []
    return [psutil.Process(entry["pid"]) for entry in entries if entry["name"] in deployments.WORKERS]


def ended(client: Client, run_id: str, seconds: float = 500) -> str:
    def state() -> str:
        with contextlib.suppress(ApiError, httpx.HTTPError):
            now = client.run_state("retrain", run_id)
            return now if now in {"success", "failed"} else ""
        return ""

    return until(state, seconds)


def promoted_once(home: Path, run_id: str) -> None:
    assert json.loads((directory(home, run_id) / "promotion.json").read_text())["version"] == 1
    registry = home / "registry/colours"
    assert sorted(path.name for path in registry.iterdir() if path.name.isdigit()) == ["1"]
    [move] = [json.loads(path.read_text()) for path in (registry / "live").glob("*.json")]
    assert move["version"] == 1


def test_a_killed_worker_while_training(
    postgres: tuple[Service, str], redis_server: tuple[Service, str], tmp_path: Path, dags: Path, photos: Path
) -> None:
    home = tmp_path / "home"
    deployment = deployments.celery(postgres[1], redis_server[1], scheduler=SCHEDULER)
    try:
        with server.start(home, dags=dags, deployment=deployment).client() as client:
            client.unpause("retrain")
            run_id = client.trigger("retrain", {"source": str(photos), "set": SETTINGS})
            [training] = until(lambda: component(home, "train"), 300)
            parents = {process.pid for process in training.parents()}
            [worker] = [process for process in workers(home) if process.pid in parents]
            worker.kill()
            wait_until_over(training.pid, 10)
            assert ended(client, run_id) == "success"
            tasks = client.task_instances("retrain", run_id)
            assert sorted(task.try_number for task in tasks)[-2:] == [1, 2]  # nothing but the training ran again
        promoted_once(home, run_id)
    finally:
        server.stop(home)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_during_a_stage(
    postgres: tuple[Service, str], tmp_path: Path, small_disk: Path, dags: Path, photos: Path
) -> None:
    """REFIT_HOME's disk is full when a stage writes, and again when the stage is retried; then space is made."""
    home = small_disk / "home"
    # Airflow's own output lies on the full disk, too: a retry that dies of that is missed by its heartbeat alone,
    # and one whose worker does so before it begins only as it stays in the queue.
    logging = {"base_log_folder": str(tmp_path / "logs")}
    deployment = deployments.local(postgres[1], logging=logging, scheduler=SCHEDULER)
    ballast = small_disk / "ballast"
    try:
        with server.start(home, dags=dags, deployment=deployment).client() as client:
            client.unpause("retrain")
            run_id = client.trigger("retrain", {"source": str(photos), "set": SETTINGS})
            until(lambda: component(home, "shard"), 200)
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
                while True:
                    stream.write(b"\0" * (1 << 20))

            def shard() -> int:
                return max(
                    task.try_number for task in client.task_instances("retrain", run_id) if "shard" in task.task_id
                )

            until(lambda: shard() > 1, 120)
            ballast.unlink()
            assert ended(client, run_id) == "success"
        promoted_once(home, run_id)
    finally:
        server.stop(home)
