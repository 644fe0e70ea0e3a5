"""The secrets and settings that compose.yaml's services start with."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "dags"))

import refit_settings  # noqa: E402


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "deploy/prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_secrets_fit_each_other_and_stay(prepare: ModuleType, tmp_path: Path) -> None:
    prepare.draw(tmp_path / "secrets")
    drawn = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert urlsplit(drawn["database"]).password == drawn["postgres_password"] == urlsplit(drawn["results"]).password
    assert f"requirepass {urlsplit(drawn['broker']).password}\n" == drawn["redis_config"]
    [identity] = json.loads(drawn["s3_config"])["identities"]
    assert identity["credentials"] == [{"accessKey": drawn["s3_access_key"], "secretKey": drawn["s3_secret_key"]}]
    assert drawn["s3_secret_key"] in drawn["aws"]
    assert len(base64.urlsafe_b64decode(drawn["fernet_key"])) == 32
    assert len(drawn["jwt_secret"]) >= 64
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    prepare.draw(tmp_path / "secrets")
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == drawn


def test_all_secrets_of_the_compose_file_are_drawn(prepare: ModuleType, tmp_path: Path) -> None:
    prepare.draw(tmp_path / "secrets")
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    wanted = {Path(secret["file"]).name for secret in compose["secrets"].values()}
    assert wanted == {path.name for path in (tmp_path / "secrets").iterdir()}


def test_the_settings_put_tasks_into_containers(
    prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = (ROOT / "params.yaml").read_text()
    text = prepare.in_containers(original)
    changed, before = yaml.safe_load(text), yaml.safe_load(original)
    assert changed["execution"]["mode"] == "docker"
    assert changed["execution"]["docker"]["home"] == "refit-home"
    assert {key: value for key, value in changed.items() if key != "execution"} == {
        key: value for key, value in before.items() if key != "execution"
    }
    # The volumes and networks that tasks' containers are to use have these names for the engine.
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    assert changed["execution"]["docker"]["home"] in {
        (volume or {}).get("name") for volume in compose["volumes"].values()
    }
    assert changed["execution"]["docker"]["network"] in {
        (net or {}).get("name") for net in compose["networks"].values()
    }
    monkeypatch.setenv("REFIT_HOME", str(tmp_path))
    (tmp_path / "params.yaml").write_text(text)
    settings = refit_settings.load().execution.docker
    assert settings is not None
    assert settings.url == "tcp://docker-proxy:2375"


def test_a_setting_that_is_gone_is_an_error(prepare: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"Expected execution\.mode once in params\.yaml, found it 0 times"):
        prepare.in_containers("ingest:\n  source: x\nexecution:\n  workers: 0\n")
