from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import process_death
import psutil
import pytest
from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout
from clean_database import CleanDatabase, knows_database

from pipeline.processes import outlast


def run(days: int | None) -> Any:
    operator = CleanDatabase(task_id="clean_database", days=days)
    return type(operator).execute.__wrapped__(operator, {"params": {"dry_run": False}})  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "variables", "expected"),
    [
        (None, {}, False),
        ("[database]\n# sql_alchemy_conn = sqlite:///x\n", {}, False),
        ("[database]\nsql_alchemy_conn = postgresql://u:p%%40@h/db\n", {}, True),
        ("[database]\nsql_alchemy_conn_cmd = cat /run/secrets/db\n", {}, True),
        ("[core]\nsql_alchemy_conn = x\n", {}, False),
        ("no [section\n", {}, False),
        (None, {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": "cat x"}, True),
        (None, {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "airflow-db-not-allowed:///"}, False),
    ],
)
def test_only_a_connection_that_somebody_has_set_counts(
    config: str | None, variables: dict[str, str], expected: bool, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "airflow.cfg").write_text(config)
    assert knows_database({"AIRFLOW_HOME": str(tmp_path), **variables}) is expected


def test_without_a_connection_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    with pytest.raises(AirflowSkipException, match="airflow db clean"):
        run(30)
    with pytest.raises(AirflowSkipException, match="clean_days is null"):
        run(None)


@pytest.fixture
def airflow(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH in which `python -m airflow` writes its process id and hangs."""
    (tmp_path / "airflow.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'new')!r}, 'w').write(str(os.getpid()))\n"
        f"os.rename({str(tmp_path / 'new')!r}, {str(tmp_path / 'pid')!r})\ntime.sleep(60)\n"
    )
    return tmp_path


def _work(airflow: Path) -> None:
    os.environ.update(PYTHONPATH=str(airflow), AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD="true")
    run(30)


def test_a_timeout_stops_the_command(airflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(airflow))
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD", "true")
    monkeypatch.setattr(process_death, "GRACE_SECONDS", 1)
    begin = time.monotonic()
    with pytest.raises(AirflowTaskTimeout), timeout(5):
        run(30)
    assert time.monotonic() - begin < 30
    assert not psutil.pid_exists(int((airflow / "pid").read_text()))


def test_the_command_ends_with_a_task_that_is_killed(airflow: Path) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_work, args=(airflow,))
    worker.start()
    deadline = time.monotonic() + 120
    while not (airflow / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    command = psutil.Process(int((airflow / "pid").read_text()))
    worker.kill()
    worker.join()
    assert outlast([command], 10) == []
