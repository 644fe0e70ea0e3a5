"""What a container is asked for, without an engine; tests/containers/test_stand_in.py runs them."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import yaml
from docker_command import container_name, given_variables, lines, remark_on
from docker_command import docker_command as make
from hypothesis import given
from hypothesis import strategies as st
from refit_command import RefitFailure, tasks
from refit_settings import Docker, Settings, load, params_file


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
