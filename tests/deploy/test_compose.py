"""compose.yaml: what it promises of every service, and what docker-compose and Airflow say of it."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_OFF = {"airflow-init", "buckets-owner"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert re.search(r":[^:@/]*\d[^:/]*$|\$\{REFIT_VERSION", service["image"]), "an image without a version"
    if name == "buckets-owner":  # gives a volume to its user, without a network, and ends
        assert (service["cap_add"], service["network_mode"]) == (["CHOWN"], "none")
        return
    assert not service["user"].startswith("0"), "runs as root"
    assert "cap_add" not in service
    assert "healthcheck" in service or name in ONE_OFF


def test_ports_are_for_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:${AIRFLOW_PORT:-8080}:8080"]


def test_the_engine_is_within_reach_of_workers_only() -> None:
    assert {name for name, service in SERVICES.items() if "engine" in service.get("networks", ())} == {
        "airflow-worker",
        "docker-proxy",
    }
    assert COMPOSE["networks"]["engine"]["internal"] is True
    sockets = {name for name, service in SERVICES.items() if "docker.sock" in str(service.get("volumes"))}
    assert sockets == {"docker-proxy"}


def test_tasks_have_a_way_out_and_reach_nothing_of_airflow() -> None:
    networks = COMPOSE["networks"]
    assert not networks["tasks"].get("internal")
    assert {name for name, service in SERVICES.items() if "tasks" in service.get("networks", ())} == {"buckets"}
    for name in ("postgres", "redis"):
        assert all(networks[network]["internal"] for network in SERVICES[name]["networks"])


@pytest.mark.parametrize("name", [name for name in SERVICES if name.startswith("airflow-")])
def test_all_of_airflow_has_one_address_and_home(name: str) -> None:
    variables = SERVICES[name]["environment"]  # which a service with variables of its own replaces as a whole
    assert variables["AIRFLOW__API__BASE_URL"] == "${AIRFLOW_URL:-http://localhost:${AIRFLOW_PORT:-8080}}"
    assert (variables["AIRFLOW_HOME"], variables["REFIT_HOME"]) == ("/refit/airflow", "/refit")


@pytest.mark.parametrize("name", ["airflow-api", "airflow-triggerer", "airflow-worker"])
def test_who_asks_the_bucket_has_its_address_and_keys(name: str) -> None:
    service = SERVICES[name]
    variables = service["environment"]
    assert Path(variables["AWS_SHARED_CREDENTIALS_FILE"]).name in service["secrets"]
    assert variables["AWS_DEFAULT_REGION"]
    assert "buckets" in service["networks"]
    address = configured(variables["AWS_ENDPOINT_URL_S3"])
    assert address == "http://buckets:8333"
    assert configured(variables["AWS_ENDPOINT_URL_S3"], AWS_ENDPOINT_URL_S3="") == ""


def configured(text: str, **environment: str) -> str:
    """What Compose makes of `${NAME-default}`: an empty variable counts, unlike with `:-`."""
    found = re.fullmatch(r"\$\{(\w+)-([^}]*)\}", text)
    assert found is not None, text
    return environment.get(found[1], found[2])


def test_an_empty_address_is_amazon(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    client = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
    assert client.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "path", "passes"),
    [
        ("GET", "/version", True),
        ("GET", "/v1.41/containers/json", True),
        ("POST", "/v1.41/containers/create", True),
        ("POST", "/v1.41/containers/abc/attach", True),
        ("POST", "/v1.41/containers/abc/wait", True),
        ("DELETE", "/v1.41/containers/abc", True),
        ("POST", "/v1.41/containers/abc/exec", False),
        ("POST", "/v1.41/build", False),
        ("POST", "/v1.41/images/create", False),
        ("POST", "/v1.41/volumes/create", False),
        ("GET", "/v1.41/containers/abc/archive", False),
        ("PUT", "/v1.41/containers/abc/archive", False),
        ("GET", "/v1.41/info", False),
        ("POST", "/v1.41/swarm/init", False),
    ],
)
def test_the_proxy_lets_pass_what_tasks_need(method: str, path: str, passes: bool) -> None:
    rules = [text.removeprefix(f"-allow{method}=") for text in SERVICES["docker-proxy"]["command"] if method in text]
    assert any(re.fullmatch(rule, path) for rule in rules) is passes


def test_nothing_secret_is_in_the_environment() -> None:
    named = {key: value for service in SERVICES.values() for key, value in service.get("environment", {}).items()}
    for key, value in named.items():
        if re.search(r"PASSWORD|SECRET|KEY|CREDENTIALS|CONN", key):
            assert str(value).startswith("/run/secrets/"), key
    assert not re.search(r"://[^/\s]*:[^/\s]*@", (DEPLOY / "compose.yaml").read_text())


def test_airflow_knows_every_option() -> None:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    known = conf.configuration_description
    written = configparser.ConfigParser(interpolation=None)
    written.read(DEPLOY / "airflow.cfg")
    for section in written.sections():
        for option in written[section]:
            name = option.removesuffix("_cmd")
            if section == "celery_broker_transport_options":
                continue  # Celery's own
            assert name in known[section]["options"], f"[{section}] {option}"
            if option.endswith("_cmd"):
                assert (section, name) in conf.sensitive_config_values


def test_docker_compose_accepts_it() -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed: apt-get install docker-compose")
    text = (DEPLOY / "compose.yaml").read_text()
    if "version 1." in subprocess.run([program, "version"], capture_output=True, text=True).stdout:
        text = re.sub(r"(?m)^name: .*$", "", text)  # newer than version 1
    done = subprocess.run(
        [program, "--file", "-", "--project-directory", str(DEPLOY), "config", "--quiet"],
        input=text,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "DOCKER_GID": "999"},
    )
    assert done.returncode == 0, done.stderr
