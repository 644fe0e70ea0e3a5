"""helm-values.yaml, as far as it can be judged without the chart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy/helm-values.yaml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)


def without_shared_volume() -> dict[str, Any]:
    """The values with the commented `volumes` and `volumeMounts` in force."""
    found = re.search(r"(?m)^# volumes:\n(?:#   .*\n|# volumeMounts:\n)+", TEXT)
    assert found is not None
    scheduler = {key: value for key, value in VALUES["scheduler"].items() if key != "extraInitContainers"}
    return {**VALUES, **yaml.safe_load(found[0].replace("# ", "", 1).replace("\n# ", "\n")), "scheduler": scheduler}


def test_airflow_knows_every_option() -> None:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    known = conf.configuration_description
    for section, options in VALUES["config"].items():
        assert options.keys() <= known[section]["options"].keys(), section


def test_no_user_is_made_with_a_known_password() -> None:
    assert VALUES["createUserJob"] == {"enabled": False}
    assert "webserver" not in VALUES  # it goes before createUserJob where both are set


def test_one_version_of_the_chart_is_named() -> None:
    guide = (ROOT / "docs/deployment.md").read_text()
    installations = re.findall(r"helm upgrade .*apache-airflow/airflow.*", TEXT + guide)
    versions = {match[1] for line in installations if (match := re.search(r"--version (\S+)", line))}
    assert len(installations) == 2
    assert len(versions) == 1
    assert f"own chart, {versions.pop()}," in TEXT


@pytest.mark.parametrize("values", [VALUES, without_shared_volume()], ids=["claim", "bucket"])
def test_params_are_where_the_dags_look(values: dict[str, Any]) -> None:
    [home] = [variable["value"] for variable in values["env"] if variable["name"] == "REFIT_HOME"]
    volumes = {volume["name"]: volume for volume in values["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in values["volumeMounts"]}
    containers = values["scheduler"].get("extraInitContainers", [])
    for mount in [*mounts.values(), *(mount for container in containers for mount in container["volumeMounts"])]:
        assert mount["name"] in volumes
    if "persistentVolumeClaim" in volumes["home"]:  # put there once, for the pods of tasks too
        [container] = containers
        assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}["home"] == home
        assert f"{home}/params.yaml" in container["command"][-1].split()
        assert container["securityContext"] == VALUES["securityContexts"]["containers"]
    else:
        assert mounts[f"{home}/params.yaml"]["subPath"] == "params.yaml"
    assert volumes["params"]["configMap"]["name"] == "refit-params"


def test_secrets_for_all_pods_are_named_in_a_list_that_may_be_missing() -> None:
    [source] = yaml.safe_load(VALUES["extraEnvFrom"])  # the chart wants text
    assert source == {"secretRef": {"name": "refit-s3", "optional": True}}
