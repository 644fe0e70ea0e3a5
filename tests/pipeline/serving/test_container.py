"""The container's life: with `docker_stand_in` always, and with a real daemon where there is one.

For the latter the image `REAL` must be there: a container that runs `stand_in.py` on port 8501.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.serving import container, rest
from pipeline.serving.container import Unavailable
from pipeline.settings import code_root
from pipeline.training import export
from tests.pipeline.serving import docker_stand_in
from tests.pipeline.training import tiny

IMAGE = "serving:1"
REAL = "stand-in:1"


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "saved_model"
    export.save_serving(tiny.trained().whole, folder, tiny.pictures(4)[0])
    return folder


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    docker_stand_in.install(tmp_path / "docker", monkeypatch, images=(IMAGE, "broken:1", "mute:1"))
    return tmp_path / "docker"


def test_it_serves_and_is_gone_afterwards(docker: Path, saved_model: Path, tmp_path: Path) -> None:
    container.check(IMAGE, pull=False)
    with container.serving(IMAGE, saved_model, owner=tmp_path) as server:
        rest.wait(server.port, container.MODEL, limit=60.0, alive=server.alive)
        assert docker_stand_in.containers(docker) == [server.name]
        assert rest.by_image(server.port, container.MODEL, tiny.pictures(2)[0]).shape == (2, 3)
    assert docker_stand_in.containers(docker) == []


def test_it_can_do_nothing_but_serve(docker: Path, saved_model: Path, tmp_path: Path) -> None:
    with container.serving("mute:1", saved_model, owner=tmp_path):
        pass
    [command] = [call for call in docker_stand_in.calls(docker) if call[0] == "run"]
    text = " ".join(command)
    assert command[-1] == "mute:1"
    assert f"--mount type=bind,source={saved_model},target=/models/candidate/1,readonly" in text
    for option in (
        "--publish 127.0.0.1::8501",
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--memory 4g",
        "--pids-limit 512",
        "--pull never",
    ):
        assert f" {option} " in f" {text} "
    assert "--privileged" not in text


def test_it_is_removed_when_what_uses_it_fails(docker: Path, saved_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), container.serving("mute:1", saved_model, owner=tmp_path):
        raise ZeroDivisionError
    assert docker_stand_in.containers(docker) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_is_removed_when_the_stage_is_told_to_stop(
    docker: Path, saved_model: Path, tmp_path: Path, number: int
) -> None:
    process = _holding(saved_model, tmp_path)
    assert len(docker_stand_in.containers(docker)) == 1
    process.send_signal(number)
    assert process.wait(60) != 0
    assert docker_stand_in.containers(docker) == []


def test_what_a_killed_stage_left_is_removed_by_the_next_and_no_other(
    docker: Path, saved_model: Path, tmp_path: Path
) -> None:
    other = _holding(saved_model, tmp_path / "other")
    killed = _holding(saved_model, tmp_path / "run")
    before = docker_stand_in.containers(docker)
    killed.kill()
    killed.wait()
    with container.serving("mute:1", saved_model, owner=tmp_path / "run") as server:
        now = docker_stand_in.containers(docker)
    assert len(before) == len(now) == 2
    assert len(set(before) & set(now) - {server.name}) == 1
    other.terminate()
    other.wait()
    assert docker_stand_in.containers(docker) == []


def _holding(saved_model: Path, owner: Path) -> subprocess.Popen[str]:
    """A process within the container's context."""
    code = (
        "import signal, time; from pathlib import Path; from pipeline.serving import container\n"
        # What is started in the background of a shell would ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"with container.serving('mute:1', Path({str(saved_model)!r}), owner=Path({str(owner)!r})):\n"
        "    print('up', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(code_root())}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.stdout.close()
    return process


def test_no_docker_no_image_no_pull_are_told_apart(
    docker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match=r"other:1 is not here, and serve\.pull is false"):
        container.check("other:1", pull=False)
    with pytest.raises(Unavailable, match="cannot be pulled: Error response from daemon: no such host"):
        container.check("other:1", pull=True)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(Unavailable, match="there is no docker command"):
        container.check(IMAGE, pull=True)
    failing = tmp_path / "failing/docker"
    failing.parent.mkdir()
    failing.write_text("#!/bin/sh\necho 'Is the docker daemon running?' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", str(failing.parent))
    with pytest.raises(Unavailable, match="daemon does not answer: Is the docker daemon running"):
        container.check(IMAGE, pull=True)


@pytest.fixture
def real() -> None:
    found = subprocess.run(["docker", "image", "inspect", REAL], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"no Docker daemon with the image {REAL}")


@pytest.mark.usefixtures("real")
def test_a_real_daemon_serves_within_these_limits(saved_model: Path, tmp_path: Path) -> None:
    container.check(REAL, pull=False)
    pictures = tiny.pictures(4)[0]
    with container.serving(REAL, saved_model, owner=tmp_path) as server:
        rest.wait(server.port, container.MODEL, limit=120.0, alive=server.alive)
        answers = rest.by_image(server.port, container.MODEL, pictures)
        told = subprocess.run(["docker", "inspect", server.name], capture_output=True, text=True, check=True)
        [described] = json.loads(told.stdout)
    limits = described["HostConfig"]
    assert abs(answers - tiny.trained().whole.predict_on_batch(pictures)).max() < 1e-4
    assert (limits["CapDrop"], limits["ReadonlyRootfs"], limits["Privileged"]) == (["ALL"], True, False)
    assert (limits["Memory"], limits["PidsLimit"]) == (4 << 30, 512)
    assert limits["SecurityOpt"] == ["no-new-privileges"]
    assert [mount["RW"] for mount in described["Mounts"]] == [False]
    assert [place["HostIp"] for place in described["NetworkSettings"]["Ports"]["8501/tcp"]] == ["127.0.0.1"]
    gone = subprocess.run(["docker", "inspect", server.name], capture_output=True, check=False)
    assert gone.returncode != 0


@pytest.mark.usefixtures("real")
def test_a_real_container_is_removed_on_sigterm(saved_model: Path, tmp_path: Path) -> None:
    code = (
        "import signal, time; from pathlib import Path; from pipeline.serving import container\n"
        # What is started in the background of a shell would ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"with container.serving({REAL!r}, Path({str(saved_model)!r}), owner=Path({str(tmp_path)!r})) as server:\n"
        "    print(server.name, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(code_root())}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        time.sleep(0.2)
        process.terminate()
    assert subprocess.run(["docker", "inspect", name], capture_output=True, check=False).returncode != 0
