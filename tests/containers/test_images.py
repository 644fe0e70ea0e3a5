"""The images as they are built from this checkout, run as Refit runs them: no root, nothing writable, no network."""

from __future__ import annotations

import docker
import pytest

from tests.containers.engine import TARGETS

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]


def run(client: docker.DockerClient, target: str, *command: str) -> str:
    output: bytes = client.containers.run(
        f"refit-{target}",
        list(command),
        remove=True,
        stderr=True,
        read_only=True,
        network_disabled=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": "mode=1777", "/refit": "uid=10001,gid=10001"},
    )
    return output.decode()


@pytest.mark.parametrize("target", TARGETS)
def test_they_run_without_root_on_a_read_only_disk(images: docker.DockerClient, target: str) -> None:
    assert run(images, target, "python", "-c", "import os; print(os.getuid(), os.getgid())").split() == ["10001"] * 2
    assert "Retrain an image classifier" in run(images, target, "refit", "--help")


@pytest.mark.parametrize(
    ("target", "there", "absent"),
    [
        ("airflow", ["airflow", "airflow.providers.docker", "celery", "psycopg2"], ["tensorflow", "keras"]),
        ("data", ["tensorflow_data_validation", "great_expectations", "cleanlab"], ["airflow", "pytest"]),
        ("train-cpu", ["tensorflow", "keras", "onnxruntime"], ["airflow", "pytest", "tensorflow_data_validation"]),
    ],
)
def test_each_holds_what_its_tasks_need_and_no_more(
    images: docker.DockerClient, target: str, there: list[str], absent: list[str]
) -> None:
    program = (
        "import importlib, importlib.util as u, sys\n"
        f"for name in {there}: importlib.import_module(name)\n"
        f"print([name for name in {absent} if u.find_spec(name)])"
    )
    assert run(images, target, "python", "-c", program).splitlines()[-1] == "[]"


@pytest.mark.parametrize("target", TARGETS)
def test_no_secret_and_no_compiler_is_left(images: docker.DockerClient, target: str) -> None:
    found = run(images, target, "sh", "-c", "ls /etc/pip.conf /etc/uv /usr/bin/gcc 2>/dev/null; true")
    assert found == ""
