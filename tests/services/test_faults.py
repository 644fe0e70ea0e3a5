"""Celery's workers, the scheduler, the API server and the database fail while a run is on: it ends as if they had not.

A stand-in takes the place of `refit`, so that what is tested is the scheduling: which process dies with which, and that
a stage that was cut off runs again, alone, and a promotion only once.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest

from embedded import config, server
from embedded.client import ApiError, Client
from embedded.config import environment_of
from embedded.processes import alive, record, recorded, spawn
from tests.processes import wait_until_over
from tests.services import backends, deployments, standin
from tests.services.backends import Service
from tests.services.standin import Events

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

HELD = "train@fold-0"
T = TypeVar("T")


@dataclass(frozen=True)
class Site:
    """Airflow with two Celery workers on PostgreSQL."""

    home: Path
    client: Client
    database: Service
    events: Events

    @contextmanager
    def run(self) -> Iterator[tuple[str, int]]:
        """Trigger a run and wait until its first training is at work; gives the run's id and the training's process."""
        self.events.clear()
        self.events.hold(HELD)
        run_id = self.client.trigger("retrain", {"set": []})
        try:
            yield run_id, until(lambda: self.events.pids("begin", HELD))[0]
        finally:
            self.events.clear()
            if not self._state(run_id):  # a test that failed; the next one waits for its run to end
                self.client.fail("retrain", run_id)

    def ended(self, run_id: str) -> str:
        """The run's state, once it has one that stays; the API may be away in between."""
        return until(lambda: self._state(run_id), 200)

    def tries(self, run_id: str) -> dict[str, int]:
        tasks = self.client.task_instances("retrain", run_id)
        return {f"{task.task_id.split('.')[-1]}@{task.label}".rstrip("@"): task.try_number for task in tasks}

    def process(self, name: str) -> psutil.Process:
        state = recorded(self.home / "airflow")
        [pid] = [entry["pid"] for entry in state["processes"] if entry["name"] == name] if state else []
        return psutil.Process(pid)

    def start_again(self, name: str) -> None:
        """Start one of Airflow's processes again, as systemd or Docker would."""
        airflow = self.home / "airflow"
        state = recorded(airflow)
        arguments = {**server.PROCESSES, **deployments.celery("", "").processes}[name]
        command = [sys.executable, "-m", "airflow", *arguments]
        started = {entry["name"]: psutil.Process(entry["pid"]) for entry in state["processes"] if entry["name"] != name}
        started[name] = spawn(command, airflow / f"{name}.log", environment_of(self.home, airflow))
        record(airflow, state["url"], started)

    def start_what_ended(self) -> set[str]:
        """Start again what has ended; gives the names."""
        state = recorded(self.home / "airflow")
        lives = {process.pid for process in alive(state)}
        ended = {entry["name"] for entry in state["processes"] if entry["pid"] not in lives}
        for name in ended:
            self.start_again(name)
        return ended

    def _state(self, run_id: str) -> str:
        with contextlib.suppress(ApiError, httpx.HTTPError):
            state = self.client.run_state("retrain", run_id)
            return state if state in {"success", "failed"} else ""
        return ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("home")
    folder = tmp_path_factory.mktemp("project")
    with (
        pytest.MonkeyPatch.context() as patch,
        backends.postgres() as (database, address),
        backends.redis_server() as (_, broker),
    ):
        patch.setattr(config, "DEFAULT_PORT", 0)  # which another Airflow could take while ours is away
        patch.setattr(sys, "executable", standin.environment(folder / "environment"))
        deployment = deployments.celery(
            address,
            broker,
            scheduler={
                "scheduler_idle_sleep_time": 0.3,
                # Five minutes by default, after which a task whose worker is gone is run again.
                "task_instance_heartbeat_timeout": 40,  # longer than the API server takes to start
                "task_instance_heartbeat_timeout_detection_interval": 3,
            },
        )
        try:
            started = server.start(home, dags=standin.project(folder), deployment=deployment)
            with started.client() as client:
                client.unpause("retrain")
                yield Site(home, client, database, Events(home))
        finally:
            server.stop(home)


def until(found: Callable[[], T], seconds: float = 90) -> T:
    """What `found` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Expected it within {seconds:.0f} s.")
        time.sleep(0.1)
    return value


def ended_well(site: Site, run_id: str, *, trainings: frozenset[int] = frozenset({1})) -> None:
    assert site.ended(run_id) == "success"
    assert len(site.events.pids("end", HELD)) in trainings
    assert len(site.events.pids("begin", "promote")) == 1


def retried_alone(site: Site, run_id: str, first: int) -> None:
    """The stage that was cut off runs again, after the first process has gone; then the run ends well."""
    began = until(lambda: pids if len(pids := site.events.pids("begin", HELD)) > 1 else [])
    wait_until_over(first, 10)
    site.events.release(HELD)
    ended_well(site, run_id)
    assert began[1:] == site.events.pids("end", HELD)
    assert site.tries(run_id)[HELD] == 2


def lineage(pid: int) -> tuple[psutil.Process, psutil.Process, psutil.Process]:
    """The command, the task's process and the process that supervises it."""
    command = psutil.Process(pid)
    task = command.parent()
    assert task is not None
    supervisor = task.parent()
    assert supervisor is not None
    return command, task, supervisor


@pytest.mark.parametrize("victim", [0, 1, 2], ids=["refit", "task", "supervisor"])
def test_a_killed_process_of_a_task(site: Site, victim: int) -> None:
    with site.run() as (run_id, first):
        lineage(first)[victim].kill()
        retried_alone(site, run_id, first)


def test_a_killed_worker(site: Site) -> None:
    with site.run() as (run_id, first):
        parents = {process.pid for process in psutil.Process(first).parents()}
        [name] = [name for name in deployments.WORKERS if site.process(name).pid in parents]
        site.process(name).kill()
        try:
            retried_alone(site, run_id, first)
        finally:
            site.start_again(name)


def test_a_restarted_scheduler(site: Site) -> None:
    with site.run() as (run_id, _):
        site.process("scheduler").kill()
        site.events.release(HELD)
        until(lambda: site.events.pids("end", HELD))
        site.start_again("scheduler")
        ended_well(site, run_id)
        assert set(site.tries(run_id).values()) == {1}


def test_an_api_server_that_is_away(site: Site) -> None:
    """A task that ends meanwhile waits to say so. If that takes longer than the scheduler's patience, it runs again."""
    with site.run() as (run_id, _):
        api = site.process("api-server")
        for process in (*api.children(recursive=True), api):
            process.kill()
        time.sleep(8)  # several heartbeats are lost
        site.start_again("api-server")
        site.events.release(HELD)
        ended_well(site, run_id, trainings=frozenset({1, 2}))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "crashed"])
def test_a_database_that_is_away(site: Site, number: signal.Signals) -> None:
    """Airflow's scheduler gives up when it loses its database: whoever runs it must start it again."""
    with site.run() as (run_id, _):
        site.database.end(number)
        time.sleep(4)
        site.database.start()
        until(lambda: "scheduler" in site.start_what_ended())
        site.events.release(HELD)
        ended_well(site, run_id)
        assert set(site.tries(run_id).values()) == {1}
