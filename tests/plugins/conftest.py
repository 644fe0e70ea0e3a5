"""Airflow's own application with our plugin in it, for users of each role."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import tests.dags.conftest  # noqa: F401 - gives Airflow a home before anything imports it
from pipeline.stage import DONE
from tests.pipeline.promotion.finished_run import finished_run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it will want another HTTP library some day; Airflow imports it too
    from starlette.testclient import TestClient

ROOT = Path(__file__).parents[2]
ROLES = ("viewer", "user", "op", "admin")

sys.path.append(str(ROOT / "plugins"))  # as Airflow itself does with its folder of plugins


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Airflow's application, its database new and empty."""
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "passwords.json").write_text(json.dumps(dict.fromkeys(ROLES, "secret")))
    settings = {
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{role}:{role}" for role in ROLES),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64,
        "AIRFLOW__API__BASE_URL": "http://testserver",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
    }
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        warnings.simplefilter("ignore")  # of Airflow's own imports
        from airflow import plugins_manager
        from airflow import settings as airflow_settings
        from airflow.api_fastapi.app import create_app
        from airflow.models.base import Base
        from airflow.utils.db import import_all_models

        airflow_settings.configure_vars()
        airflow_settings.configure_orm()
        import_all_models()
        Base.metadata.create_all(airflow_settings.engine)
        for found in vars(plugins_manager).values():  # a test of the DAGs may have looked where there is none
            if hasattr(found, "cache_clear"):
                found.cache_clear()
        yield create_app(apps="core")
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def browse(app: Any) -> Callable[..., httpx.Client]:
    """browse(role): a client with the cookie of a user of this role; without a role, with none."""

    def open_session(role: str | None = None) -> httpx.Client:
        client = TestClient(app, follow_redirects=False)
        if role is not None:
            answer = client.post("/auth/token", json={"username": role, "password": "secret"})
            client.cookies.set("_token", answer.json()["access_token"])
        return client

    return open_session


@pytest.fixture
def run(refit_home: Path) -> Path:
    """A run that was decided on and has pages."""
    folder = finished_run(refit_home / "runs" / "manual__2026-03-01T02_15_00_00_00")
    for name, text in {
        f"{DONE}/train@final": "",
        "report.html": "<!doctype html><title>The report</title>",
        "reports/validation/index.html": "<!doctype html><title>The data</title>",
        "reports/validation/verdict.json": "{}",
        "reports/validation/data_docs/index.html": "<!doctype html>",
        "reports/validation/data_docs/validations/images/r/t/b.html": "<!doctype html><title>Results</title>",
        "reports/validation/data_docs/expectations/images.html": "<!doctype html><title>Rules</title>",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
