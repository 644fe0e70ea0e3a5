"""The few calls of Airflow's REST API that the demo and the tests need."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import httpx

FINISHED_RUN = {"success", "failed"}
PAGE = 100


class ApiError(Exception):
    """Airflow refused a call; the text holds its answer."""


class Faltered(ApiError):
    """Airflow could not answer, which may pass: its database is busy, say."""


@dataclass(frozen=True)
class TaskInstance:
    task_id: str
    map_index: int  # -1 unless mapped
    label: str  # of a mapped instance, such as fold-0, or #1 until it has a name; empty otherwise
    state: str  # "" before the scheduler looked at it
    try_number: int
    start: datetime | None
    end: datetime | None


@dataclass(frozen=True)
class DagRun:
    run_id: str
    state: str  # queued, running, success or failed
    kind: str  # manual, scheduled or asset_triggered
    start: datetime | None
    end: datetime | None


class Client:
    """A session of one user. A context manager."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        answer = self._http.post("/auth/token", json={"username": user, "password": password})
        token = _checked(answer)["access_token"]
        self._http.headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ensure_pool(self, name: str, slots: int) -> None:
        """Create the pool; one that exists is left as its owner set it."""
        if self._http.get(f"/api/v2/pools/{name}").status_code == httpx.codes.NOT_FOUND:
            _checked(self._http.post("/api/v2/pools", json={"name": name, "slots": slots}))

    def unpause(self, dag_id: str, *, timeout: float = 180) -> None:
        """Wait until the DAG was parsed, then let it run. Raises `ApiError` if it cannot be parsed."""
        deadline = time.monotonic() + timeout
        while (answer := self._http.patch(f"/api/v2/dags/{dag_id}", json={"is_paused": False})).status_code == 404:
            if errors := self._get("/api/v2/importErrors")["import_errors"]:
                raise ApiError(f"Airflow cannot read {errors[0]['filename']}:\n{errors[0]['stack_trace']}")
            if time.monotonic() > deadline:
                raise ApiError(f"Airflow did not find the DAG {dag_id} within {timeout:.0f} s.")
            time.sleep(0.3)
        _checked(answer)

    def trigger(self, dag_id: str, params: dict[str, Any]) -> str:
        """Start a run and return its id."""
        answer = self._http.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": params})
        return str(_checked(answer)["dag_run_id"])

    def runs(self, dag_id: str) -> list[DagRun]:
        """The latest hundred, oldest first."""
        page = self._get(f"/api/v2/dags/{dag_id}/dagRuns", params={"limit": PAGE, "order_by": "-run_after"})
        found = [
            DagRun(
                item["dag_run_id"], item["state"], item["run_type"], _time(item["start_date"]), _time(item["end_date"])
            )
            for item in page["dag_runs"]
        ]
        return found[::-1]

    def add_connection(self, connection_id: str, kind: str, **parts: Any) -> None:
        """`parts`: host, port, login, password, schema or extra."""
        _checked(
            self._http.post("/api/v2/connections", json={"connection_id": connection_id, "conn_type": kind, **parts})
        )

    def fail(self, dag_id: str, run_id: str) -> None:
        """End a run, its tasks included."""
        _checked(self._http.patch(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"}))

    def run_state(self, dag_id: str, run_id: str) -> str:
        """queued, running, success or failed."""
        return str(self._get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        found: list[TaskInstance] = []
        while True:
            page = self._get(
                f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": PAGE, "offset": len(found)}
            )
            found.extend(_task_instance(item) for item in page["task_instances"])
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def log(self, dag_id: str, run_id: str, task: TaskInstance) -> list[str]:
        """Lines of the log of the task's last try."""
        answer = self._get(
            f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task.task_id}/logs/{max(1, task.try_number)}",
            params={"map_index": task.map_index, "full_content": "true"},
        )
        lines = []
        for item in answer["content"]:
            lines.append(item if isinstance(item, str) else str(item.get("event", "")))
        return lines

    def _get(self, path: str, **options: Any) -> Any:
        return _checked(self._http.get(path, headers={"Accept": "application/json"}, **options))


def _checked(answer: httpx.Response) -> Any:
    if answer.is_error:
        kind = Faltered if answer.is_server_error else ApiError
        raise kind(
            f"{answer.request.method} {answer.request.url} was answered {answer.status_code}: {answer.text[:500]}"
        )
    return answer.json()


def _task_instance(item: dict[str, Any]) -> TaskInstance:
    label, index = item["rendered_map_index"] or "", item["map_index"]
    if index >= 0 and label in {"", str(index)}:  # Airflow knows its name once it has begun
        label = f"#{index + 1}"
    return TaskInstance(
        task_id=item["task_id"],
        map_index=index,
        label=label,
        state=item["state"] or "",
        try_number=item["try_number"],
        start=_time(item["start_date"]),
        end=_time(item["end_date"]),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
