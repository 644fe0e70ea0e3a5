"""What a container is asked for, without an engine; tests/containers/test_stand_in.py runs them."""

from __future__ import annotations

import copy
import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import yaml
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.log import redact
from docker_command import container_name, given_variables, lines, remark_on
from docker_command import docker_command as make
from hypothesis import given
from hypothesis import strategies as st
from refit_command import RefitFailure, TransientFailure, tasks
from refit_settings import Docker, Settings, load, params_file

from tests.servers import running


def settings(**changes: Any) -> Docker:
    stated = yaml.safe_load(params_file().read_text())["execution"]["docker"]
    return Docker.model_validate({**stated, **changes})


def host_config(changed: Docker, stage: str = "ingest") -> dict[str, Any]:
    operator = tasks(make(changed)).RunStage(task_id="task", stage=stage)
    operator.hook = SimpleNamespace(api_client=docker.APIClient("tcp://127.0.0.1:1", version="1.41"))
    return operator.host_config()  # type: ignore[no-any-return]


def test_a_container_may_do_nothing_that_it_does_not_need(refit_home: Path) -> None:
    config = host_config(settings(memory="2g", cpus=1.5))
    expected = {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Init": True,
        "PidsLimit": 4096,
        "Memory": 2 << 30,
        "MemorySwap": 2 << 30,
        "NanoCpus": 1_500_000_000,
        "ShmSize": 1 << 30,
        "Tmpfs": {"/tmp": "rw,nosuid,nodev,noexec,mode=1777,size=4g"},
    }
    assert {key: config[key] for key in expected} == expected
    assert not {"Privileged", "CapAdd", "Devices", "PidMode", "IpcMode", "DeviceRequests"} & {
        key for key, value in config.items() if value
    }
    [home] = config["Mounts"]
    assert (home["Target"], home["Source"], home["Type"], home["ReadOnly"]) == (str(refit_home),) * 2 + ("bind", False)


def test_home_and_sources_are_volumes_or_folders() -> None:
    photos = {"source": "/srv/photos", "target": "/photos"}
    config = host_config(settings(home="refit_home", mounts=[photos, {**photos, "source": "in", "read_only": False}]))
    assert [(mount["Source"], mount["Type"], mount["ReadOnly"]) for mount in config["Mounts"]] == [
        ("refit_home", "volume", False),
        ("/srv/photos", "bind", True),
        ("in", "volume", False),
    ]


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (2, {"Count": 2, "DeviceIDs": []}),
        ("all", {"Count": -1, "DeviceIDs": []}),
        (["GPU-1"], {"Count": 0, "DeviceIDs": ["GPU-1"]}),
    ],
)
def test_training_alone_gets_gpus(gpus: Any, expected: dict[str, Any]) -> None:
    [request] = host_config(settings(gpus=gpus), "train")["DeviceRequests"]
    assert request | expected | {"Capabilities": [["gpu"]]} == request
    assert "DeviceRequests" not in host_config(settings(gpus=gpus), "evaluate")
    assert "DeviceRequests" not in host_config(settings(gpus=0), "train")


def test_each_stage_gets_the_image_that_has_its_libraries() -> None:
    run = tasks(make(settings()))
    images = {stage: run.RunStage(task_id=stage, stage=stage).image for stage in ("ingest", "shard", "train", "serve")}
    assert images == {
        "ingest": "refit-data",
        "shard": "refit-data",
        "train": "refit-train-cpu",
        "serve": "refit-train-cpu",
    }
    assert run.StartRun(task_id="start").image == "refit-data"
    assert run.RunCommand(task_id="x", arguments=["runs"]).image == "refit-data"


def test_only_our_own_arguments_are_templates() -> None:
    run = tasks(make(settings()))
    stage = run.RunStage(task_id="train", stage="train", part="{{ 'fold-' ~ 1 }}", options=["--note=a.sh"])
    stage.render_template_fields({})
    assert (stage.part, stage.options) == ("fold-1", ["--note=a.sh"])
    assert set(stage.template_fields) == {"part", "options"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("user", "0:0", "execution.docker.user"),
        ("memory", "lots", "execution.docker.memory"),
        ("images", {"data": "x"}, "execution.docker.images.train is missing"),
        ("nework", "none", "unknown key execution.docker.nework"),
        ("mounts", [{"source": "a", "target": "b"}], "execution.docker.mounts.0.target"),
    ],
)
def test_a_wrong_setting_is_named(key: str, value: Any, words: str, refit_home: Path) -> None:
    params = copy.deepcopy(yaml.safe_load(params_file().read_text()))
    params["execution"]["docker"][key] = value
    refit_home.mkdir()
    (refit_home / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        load()


def test_a_mode_needs_its_section() -> None:
    with pytest.raises(ValueError, match=r"expected the section execution\.docker of params\.yaml, got none"):
        Settings.model_validate({"airflow": {}, "execution": {"mode": "docker"}})


def labels(**changes: str) -> dict[str, str]:
    known = {"refit.home": "/h", "refit.dag": "d", "refit.run": "r", "refit.task": "train", "refit.map": "0"}
    return {**known, "refit.part": "fold-0", "refit.try": "1", **changes}


def test_all_attempts_of_a_task_share_a_name_and_no_other_task_has_it() -> None:
    assert container_name(labels()) == container_name(labels(**{"refit.try": "2"}))
    names = {container_name(labels(**{key: "other"})) for key in labels() if key not in ("refit.try", "refit.part")}
    assert len(names | {container_name(labels())}) == 6
    assert container_name(labels(**{"refit.task": "a b/ü", "refit.part": ""})).startswith("refit-a-b---")


def test_secrets_come_from_files_and_from_the_worker_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "stale")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-1")
    monkeypatch.setenv("UNASKED", "x")
    names = ["AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "NOT_SET"]
    assert given_variables(settings(environment=names)) == {
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_DEFAULT_REGION": "eu-1",
    }
    (tmp_path / "key").unlink()
    with pytest.raises(RefitFailure, match=r"AWS_SECRET_ACCESS_KEY_FILE: .* cannot be read"):
        given_variables(settings(environment=names))


def test_values_that_sound_secret_are_masked_in_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["AWS_ACCESS_KEY_ID", "STORE_PASSWORD", "session_token", "AWS_DEFAULT_REGION"]
    for name in names:
        monkeypatch.setenv(name, f"value-of-{name}")
    line = " ".join(given_variables(settings(environment=names)).values())
    assert redact(line) == "*** *** *** value-of-AWS_DEFAULT_REGION"


def test_an_aws_connection_becomes_what_boto3_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_STORE",
        '{"conn_type": "aws", "login": "me", "password": "s3cret", '
        '"extra": {"region_name": "eu-1", "endpoint_url": "http://store:9000"}}',
    )
    assert given_variables(settings(aws_connection="store")) == {
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_DEFAULT_REGION": "eu-1",
        "AWS_ENDPOINT_URL": "http://store:9000",
    }


def test_memory_and_ownership_are_explained() -> None:
    assert "execution.docker.memory" in remark_on({"OOMKilled": True}, "", settings(memory="8g"), "1:1")
    denied = remark_on({}, "error: Not allowed to use /h/runs (Permission denied).", settings(home="/srv/h"), "7:7")
    assert "chown -R 7:7 /srv/h" in denied
    assert remark_on({"Error": "", "OOMKilled": False}, "error: Too few images.", settings(), "1:1") == ""


@given(
    st.lists(st.tuples(st.sampled_from("ab\u20ac\n"), st.sampled_from([1, 2])), max_size=40),
    st.lists(st.integers(1, 7), min_size=1, max_size=8),
)
def test_lines_do_not_depend_on_how_the_stream_is_cut(written: list[tuple[str, int]], sizes: list[int]) -> None:
    frames = []
    for index, (text, number) in enumerate(written):
        data, size = text.encode(), sizes[index % len(sizes)]
        frames += [(number, data[at : at + size]) for at in range(0, len(data), size)]
    found = list(lines(iter(frames)))
    for number in (1, 2):
        whole = "".join(text for text, stream in written if stream == number)
        assert [line for line, stream in found if stream == number] == whole.splitlines(keepends=True)


def test_progress_that_is_drawn_over_is_told_apart() -> None:
    frames = [(1, b"10 %\r"), (1, b"20"), (2, b"error: x\n"), (1, b" %\r\n"), (1, b"done")]
    assert list(lines(iter(frames))) == [("10 %\r", 1), ("error: x\n", 2), ("20 %\n", 1), ("done", 1)]


class Engine(ThreadingHTTPServer):
    """Stands in for a Docker engine that lets a container start and then does what no engine does on demand."""

    daemon_threads = True

    def __init__(self, *, resets: bool = False, removed: str = "") -> None:
        """`resets`: the connection with the output is reset. `removed`: the request at which the container is gone."""
        super().__init__(("127.0.0.1", 0), Answers)
        self.resets, self.removed = resets, removed
        self.started = threading.Event()

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # the parent's own would send an orderly end before the reset


class Answers(BaseHTTPRequestHandler):
    server: Engine
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        kind = path.rpartition("/")[2]
        if kind == "attach":
            self.attach()
        elif path.endswith(f"abc/{self.server.removed}"):
            self.send(404, {"message": "No such container: abc"})
        elif kind == "start":
            self.server.started.set()
            self.send(204)
        elif path.endswith("containers/json"):
            self.send(200, [])
        elif path.endswith("images/json"):
            self.send(200, [{"Id": "image"}])
        elif kind == "_ping":
            self.send(200, text="OK")
        elif kind == "json":
            self.send(200, {"State": {}})
        else:
            self.send(200, {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Id": "abc", "StatusCode": 137})

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - names of the parent's

    def attach(self) -> None:
        self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        self.server.started.wait(10)
        self.close_connection = True
        if self.server.resets:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def send(self, status: int, value: Any = None, *, text: str = "") -> None:
        body = (text if value is None else json.dumps(value)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"resets": True}, "engine cannot be reached.*reset"),
        ({"removed": "wait"}, "Somebody has removed the container refit-train-final"),
        ({"removed": "json"}, "Somebody has removed the container refit-train-final"),
    ],
    ids=["reset", "removed while it runs", "removed as it ends"],
)
def test_what_happens_to_a_running_container_is_retried(behaviour: dict[str, Any], words: str) -> None:
    with running(Engine(**behaviour)) as engine:
        address = f"tcp://127.0.0.1:{engine.server_port}"
        operator = tasks(make(settings(url=address))).RunStage(task_id="train", stage="train", part="final")
        instance = SimpleNamespace(dag_id="retrain", task_id="train", map_index=0, try_number=1)
        token = ExecutorSafeguard.tracker.set(operator)
        try:
            with pytest.raises(TransientFailure, match=words):
                operator.execute({"ti": instance, "run_id": "manual__1+00:00", "params": {}})
        finally:
            ExecutorSafeguard.tracker.reset(token)
