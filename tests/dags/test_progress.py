"""What `make demo` shows of a run, as Airflow's REST API tells it."""

from __future__ import annotations

import functools
import io
from typing import Any

import httpx
import pytest
from rich.console import Console

from embedded.client import Client
from embedded.progress import watch

UNTIMED = {"try_number": 0, "start_date": None, "end_date": None}


def answer(request: httpx.Request) -> httpx.Response:
    """Of three parts the first has begun; the others have no name yet, so Airflow gives their index."""
    if request.url.path == "/auth/token":
        return httpx.Response(201, json={"access_token": "t"})
    if not request.url.path.endswith("/taskInstances"):
        return httpx.Response(200, json={"state": "failed"})
    tasks: list[dict[str, Any]] = [
        {"task_id": "train", "map_index": index, "rendered_map_index": name, "state": state, **UNTIMED}
        for index, name, state in [(0, "fold-0", "failed"), (1, "1", "skipped"), (2, "2", "skipped")]
    ]
    tasks.append({"task_id": "gate", "map_index": -1, "rendered_map_index": None, "state": "skipped", **UNTIMED})
    return httpx.Response(200, json={"task_instances": tasks, "total_entries": 4})


def test_a_part_without_a_name_yet_is_numbered_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = httpx.MockTransport(answer)
    monkeypatch.setattr(httpx, "Client", functools.partial(httpx.Client, transport=transport))
    shown = io.StringIO()
    with Client("http://airflow.invalid", "admin", "secret") as client:
        watch(client, "retrain", "r", ["train", "gate"], Console(file=shown, width=100))
    names = [" ".join(line.split()[2:-1]) for line in shown.getvalue().splitlines()]
    assert names == ["train fold-0", "train #2", "train #3", "gate"]


def test_an_answer_that_is_missing_for_a_moment_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite is locked for longer than Airflow waits, on a machine that trains."""
    locked = iter([500, 503])

    def falter(request: httpx.Request) -> httpx.Response:
        status = next(locked, None) if request.url.path.endswith("/r") else None
        return answer(request) if status is None else httpx.Response(status, text="database is locked")

    monkeypatch.setattr(httpx, "Client", functools.partial(httpx.Client, transport=httpx.MockTransport(falter)))
    with Client("http://airflow.invalid", "admin", "secret") as client:
        state, tasks = watch(client, "retrain", "r", ["train", "gate"], Console(file=io.StringIO(), width=100))
    assert (state, len(tasks)) == ("failed", 4)
