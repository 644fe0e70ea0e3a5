from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from clean_database import CleanDatabase, knows_database


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
