"""The docker operators on a real engine, with a shell script that stands in for `refit`."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import yaml
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout
from docker_command import docker_command
from refit_command import RefitFailure, TransientFailure, tasks
from refit_settings import Docker, params_file

from tests.containers.engine import base_image

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

IMAGE = "refit-test-stand-in"
# Runs its last argument as a script; stops with standard input as `refit` does.
STAND_IN = """#!/bin/sh
exec 3<&0
if [ -n "$REFIT_STOP_WITH_STDIN" ]; then { cat <&3 >/dev/null; kill -TERM $$; } & fi
for last; do :; done
eval "$last"
"""


@pytest.fixture(scope="module")
def address(engine_address: str) -> Iterator[str]:
    with contextlib.closing(docker.DockerClient(base_url=engine_address)) as client:
        container = client.containers.create(base_image(engine_address), "true")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo("refit")
            entry.size, entry.mode = len(STAND_IN), 0o755
            archive.addfile(entry, io.BytesIO(STAND_IN.encode()))
        container.put_archive("/usr/bin", buffer.getvalue())
        container.commit(IMAGE)
        container.remove()
        yield engine_address
        client.images.remove(IMAGE, force=True)


@pytest.fixture
def client(address: str) -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.DockerClient(base_url=address)) as client:
        yield client
        for container in ours(client):
            container.remove(force=True)


def ours(client: docker.DockerClient) -> list[Any]:
    """Containers of this test, which has a REFIT_HOME of its own."""
    return client.containers.list(all=True, filters={"label": f"refit.home={os.environ['REFIT_HOME']}"})  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def home(refit_home: Path) -> Path:
    refit_home.mkdir()
    refit_home.chmod(0o777)
    for parent in refit_home.parents:  # pytest's own folders are for root alone
        if parent.stat().st_uid == os.getuid() and parent != Path("/tmp") and parent.is_relative_to("/tmp"):
            parent.chmod(0o755)
    return refit_home


def run(address: str, script: str, *, map_index: int = 0, attempt: int = 1, **changes: Any) -> Any:
    """What the task returns that runs `script` in its container."""
    stated = yaml.safe_load(params_file().read_text())["execution"]["docker"]
    images = {"data": IMAGE, "train": IMAGE}
    settings = Docker.model_validate({**stated, "images": images, "url": address, "stop_seconds": 2, **changes})
    operator = tasks(docker_command(settings)).RunStage(task_id="train", stage="train", part="final", options=[script])
    instance = SimpleNamespace(dag_id="retrain", task_id="train", map_index=map_index, try_number=attempt)
    operators.append(operator)
    token = ExecutorSafeguard.tracker.set(operator)  # as the task runner does
    try:
        return operator.execute({"ti": instance, "run_id": "manual__1+00:00", "params": {}})
    finally:
        ExecutorSafeguard.tracker.reset(token)


operators: list[Any] = []


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return found


def test_it_is_hardened_and_gives_its_result(address: str, client: docker.DockerClient, home: Path) -> None:
    script = r"""
        probe() { "$@" 2>/dev/null && echo yes || echo no; }
        status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }
        printf '{"user": "%s", "root": "%s", "tmp": "%s", "exec": "%s", "home": "%s", "shm": "%s",' \
            "$(id -u):$(id -g)" "$(probe touch /x)" "$(probe touch /tmp/x)" \
            "$(cp /bin/true /tmp/t; probe /tmp/t)" "$(probe touch $REFIT_HOME/x)" \
            "$(df -k --output=size /dev/shm | tail -1)"
        printf '"capabilities": "%s", "privileges": "%s", "pids": "%s", "memory": "%s"}\n' \
            "$(status CapEff)$(status CapBnd)" "$(status NoNewPrivs)" \
            "$(cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max)" \
            "$(cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes)"
    """
    result = run(address, script, user="10001:10001", memory="64m", pids=100, shared_memory="8m")
    assert result.pop("shm").strip() == str(8 << 10)
    assert result == {
        "user": "10001:10001",
        "root": "no",
        "tmp": "yes",
        "exec": "no",
        "home": "yes",
        "capabilities": "0" * 32,
        "privileges": "1",
        "pids": "100",
        "memory": str(64 << 20),
    }
    assert (home / "x").stat().st_uid == 10001
    assert ours(client) == []


@pytest.mark.parametrize(
    ("script", "expected", "words"),
    [
        ("exit 99", AirflowSkipException, "Nothing new"),
        ("exit 75", TransientFailure, "status 75"),
        ("kill -KILL $$", TransientFailure, "status 137"),
        ("echo '{}'; echo 'error: Too few images.' >&2; echo more; exit 65", RefitFailure, "error: Too few images.$"),
        (
            "echo 'error: Not allowed to use /refit/runs (Permission denied).' >&2; exit 65",
            RefitFailure,
            "chown -R 10001:10001",
        ),
    ],
    ids=["nothing new", "transient", "killed", "bad data", "home of another user"],
)
def test_exit_statuses(
    script: str, expected: type[Exception], words: str, address: str, client: docker.DockerClient
) -> None:
    with pytest.raises(Exception, match=words) as caught:
        run(address, script, user="10001:10001")
    assert type(caught.value) is expected
    assert ours(client) == []


def test_streams_are_told_apart_and_logged_as_they_come(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = r"""printf 'step 1\rstep 2\rstep 3\r\n'; echo warning >&2; echo '{"a": 1}'; echo '{"b": 2}' >&2"""
    assert run(address, script) == {"a": 1}
    # After the line that names the command, in which all this stands too.
    log = capsys.readouterr().out.split("Starting docker container")[1]
    assert all(text in log for text in ("step 1 ", "step 3 ", "warning ", '{"b": 2} ')), log
    assert "step 2" not in log  # progress is thinned


def test_secrets_reach_the_container_and_no_log(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2" * 2)
    script = """[ "$AWS_SECRET_ACCESS_KEY" = "$(printf 'hunter2%.0s' 1 2)" ] && echo '{"ok": true}'"""
    assert run(address, script, environment=["AWS_SECRET_ACCESS_KEY"])
    assert "hunter2hunter2" not in capsys.readouterr().out


def test_a_container_that_outgrows_its_memory_says_so(address: str) -> None:
    with pytest.raises(TransientFailure, match=r"ran out of memory \(limit: 64m\)"):
        run(address, """perl -e '$x = "a" x 300_000_000'; s=$?; sleep 1; exit $s""", memory="64m")


def test_a_timeout_stops_the_container_and_is_what_fails_the_task(address: str, client: docker.DockerClient) -> None:
    with pytest.raises(AirflowTaskTimeout), timeout(10):
        run(address, "sleep 60")
    operators[-1].on_kill()  # Airflow calls it then, when the container is gone already
    assert ours(client) == []


def test_a_cancelled_task_stops_its_container(address: str, client: docker.DockerClient) -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            run(address, "trap 'echo bye; exit 143' TERM; echo up; sleep 60 & wait", stop_seconds=20)
        except TransientFailure as error:
            caught.append(error)

    before = len(operators)
    worker = threading.Thread(target=work)
    worker.start()
    wait_for(lambda: [found for found in ours(client) if b"up" in found.logs()])
    operators[before].on_kill()
    worker.join(30)
    assert "status 143: bye" in str(caught[0])
    assert ours(client) == []


def test_a_container_that_somebody_removes_is_retried(address: str, client: docker.DockerClient) -> None:
    def remove() -> None:
        [found] = wait_for(lambda: [found for found in ours(client) if found.status == "running"])
        found.remove(force=True)

    other = threading.Thread(target=remove)
    other.start()
    # The second where the engine still tells how it ended.
    with pytest.raises(TransientFailure, match=r"Somebody has removed the container|ended with status 137"):
        run(address, "sleep 60")
    other.join()


def test_what_the_engine_refuses_is_explained(address: str) -> None:
    with pytest.raises(
        (RefitFailure, TransientFailure), match="refit-no-such"
    ):  # where no registry answers, the latter
        run(address, "true", images=dict.fromkeys(("data", "train"), "127.0.0.1:1/refit-no-such"))
    with pytest.raises(RefitFailure, match=r"/no/such/folder"):
        run(address, "true", mounts=[{"source": "/no/such/folder", "target": "/in"}])
    with pytest.raises(RefitFailure, match=r"execution\.docker\.gpus"):
        run(address, "true", gpus=1)
    with pytest.raises(TransientFailure, match="start the engine"):
        run("tcp://127.0.0.1:1", "true")


def _work(address: str, home: str, script: str) -> None:
    os.environ["REFIT_HOME"] = home
    run(address, script)


@pytest.mark.parametrize("stubborn", [False, True], ids=["it stops by itself", "the next attempt stops it"])
def test_no_second_container_runs_beside_that_of_a_killed_worker(
    stubborn: bool, address: str, client: docker.DockerClient, home: Path
) -> None:
    ignore = "trap '' TERM; " if stubborn else ""
    script = f"{ignore}echo $$ > $REFIT_HOME/up; while :; do sleep 1; done"
    worker = multiprocessing.get_context("spawn").Process(target=_work, args=(address, str(home), script))
    worker.start()
    wait_for(lambda: (home / "up").exists())
    [first] = ours(client)
    other = client.containers.create(IMAGE, labels={**first.labels, "refit.map": "1"}, name="refit-test-other-part")
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    if not stubborn:
        wait_for(lambda: not [found for found in ours(client) if found.status == "running"], 20)
    else:
        time.sleep(2)
        first.reload()
        assert first.status == "running"
    # The second one sees in the process table of the engine's host what else runs under this home.
    assert run(address, """echo '{"second": true}'""", attempt=2) == {"second": True}
    assert [container.id for container in ours(client)] == [other.id]
    events = client.api.events(since=int(time.time()) - 120, until=int(time.time()) + 1, decode=True)
    label = f"refit.home={home}".partition("=")[2]
    order = [
        event["status"]
        for event in events
        if event["Type"] == "container"
        and event["Actor"]["Attributes"].get("refit.home") == label
        and event["status"] in {"start", "die"}
    ]
    assert order == ["start", "die", "start", "die"]


def test_old_leftovers_of_other_tasks_are_removed_and_running_ones_stay(
    address: str, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import docker_command as module

    known = {"refit.home": os.environ["REFIT_HOME"], "refit.task": "another"}
    ended = client.containers.run(IMAGE, ["refit", "true"], labels=known, detach=True)
    running = client.containers.run(IMAGE, ["refit", "sleep 600"], labels=known, detach=True)
    ended.wait()
    run(address, "true")
    assert {found.id for found in ours(client)} == {ended.id, running.id}
    monkeypatch.setattr(module, "LEFTOVER_SECONDS", -1)
    run(address, "true")
    assert {found.id for found in ours(client)} == {running.id}


def test_the_result_survives_much_output(address: str) -> None:
    body = "x" * 100_000
    script = (
        f"""i=0; while [ $i -lt 3000 ]; do echo {"y" * 80}; i=$((i+1)); done; echo '{json.dumps({"body": body})}'"""
    )
    assert run(address, script) == {"body": body}
