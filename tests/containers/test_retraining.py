"""A whole retraining with every task in a container: Airflow here, `refit` in the real images."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from embedded import server
from embedded.client import Client
from pipeline.settings import code_root
from tests.dags.test_embedded import SETTINGS, directory, draw, retrain

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

USER = 10001


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("photos")
    source.chmod(0o755)  # for the containers' user, too
    draw(source, range(24))
    return source


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, engine_address: str, source: Path) -> Path:
    home = tmp_path_factory.mktemp("refit")
    os.chown(home, USER, USER)
    params = yaml.safe_load((code_root() / "params.yaml").read_text())
    params["execution"]["mode"] = "docker"
    params["execution"]["docker"] |= {
        "url": engine_address,
        "mounts": [{"source": str(source), "target": str(source)}],
        "memory": "4g",
    }
    (home / "params.yaml").write_text(yaml.safe_dump(params))
    return home


@pytest.fixture(scope="module")
def client(home: Path, images: docker.DockerClient) -> Iterator[Client]:
    started = server.start(home)
    try:
        with started.client() as client:
            client.unpause("retrain")
            yield client
    finally:
        server.stop(home)


def test_every_task_runs_in_a_container(client: Client, home: Path, source: Path, images: docker.DockerClient) -> None:
    seen: dict[str, dict[str, Any]] = {}
    killed: list[str] = []
    ended = threading.Event()

    def watch() -> None:
        """Note every container; kill the first that trains fold-1."""
        kinds = {"type": "container", "event": ["create", "start", "die"], "label": f"refit.home={home}"}
        for event in images.events(since=begun, filters=kinds, decode=True):
            if ended.is_set():
                return
            attributes = event["Actor"]["Attributes"]
            if event["status"] == "create":  # at its start, one of a short task may be gone before we ask
                container = images.containers.get(event["id"])
                seen[event["id"]] = {**attributes, "host": container.attrs["HostConfig"], **container.attrs["Config"]}
            elif event["status"] == "start" and attributes["refit.part"] == "fold-1" and not killed:
                killed.append(event["id"])
                images.containers.get(event["id"]).kill()

    begun = int(time.time())
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    run_id, state, tasks, shown = retrain(client, {"source": str(source), "set": SETTINGS})
    ended.set()
    assert state == "success", shown
    run = directory(home, run_id)

    # One container for each task and attempt, none left, none with rights.
    stages = yaml.safe_load((run / "dvc.yaml").read_text())["stages"]
    expected = {"start", "promote", *stages}
    assert {facts["refit.task"] for facts in seen.values()} == expected
    assert [facts["refit.try"] for facts in seen.values() if facts["refit.part"] == "fold-1"] == ["1", "2"]
    for facts in seen.values():
        assert facts["User"] == f"{USER}:{USER}"
        assert facts["host"]["ReadonlyRootfs"]
        assert facts["host"]["CapDrop"] == ["ALL"]
        trains = facts["refit.task"] in {"train", "evaluate", "diagnose", "serve", "gate", "promote"}
        assert facts["image"] == ("refit-train-cpu" if trains else "refit-data")
    assert images.containers.list(all=True, filters={"label": "refit.task"}) == []

    # What came of it is as in any other mode, and belongs to the containers' user.
    assert json.loads((run / "promotion.json").read_text())["version"] == 1
    moves = list((home / "registry/colours").glob("**/*.keras"))
    assert len(moves) == 1
    assert {path.stat().st_uid for path in run.rglob("*") if not path.is_symlink()} == {USER}

    # The same again: nothing new.
    _, state, tasks, shown = retrain(client, {"source": str(source), "set": SETTINGS})
    assert state == "success", shown
    assert tasks.pop("start") == "success"
    assert set(tasks.values()) == {"skipped"}
