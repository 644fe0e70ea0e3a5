"""A whole retraining on each executor that the deployments use, on PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from embedded import server
from tests.dags.test_embedded import SETTINGS, directory, draw, retrain
from tests.services import deployments
from tests.services.backends import Service

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


def retrained_once(home: Path, source: Path, deployment: server.Deployment) -> server.Server:
    """Start Airflow, retrain, and see that there is one version; leaves Airflow running."""
    draw(source, range(24))
    started = server.start(home, deployment=deployment)
    with started.client() as client:
        client.unpause("retrain")
        run_id, state, tasks, shown = retrain(client, {"source": str(source), "set": SETTINGS})
    assert state == "success", shown
    assert set(tasks.values()) == {"success"}
    assert json.loads((directory(home, run_id) / "promotion.json").read_text())["version"] == 1
    assert (home / "registry/colours/1/model.keras").is_file()
    return started


def test_local_executor(postgres: tuple[Service, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    try:
        retrained_once(home, tmp_path / "photos", deployments.local(postgres[1]))
        assert not (home / "airflow/airflow.db").exists()
    finally:
        server.stop(home)
    assert server.processes(home) == []


def test_celery_executor(postgres: tuple[Service, str], redis_server: tuple[Service, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    try:
        retrained_once(home, tmp_path / "photos", deployments.celery(postgres[1], redis_server[1]))
        for name in deployments.WORKERS:
            assert "Task execute_workload" in (home / f"airflow/{name}.log").read_text(), name
        ports = {
            connection.laddr.ip
            for process in server.processes(home)
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert ports == {"127.0.0.1"}
    finally:
        server.stop(home)
    assert server.processes(home) == []
