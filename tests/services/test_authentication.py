"""FAB's users and roles, as compose.yaml sets them up, on PostgreSQL."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedded import config, server
from tests.services import deployments
from tests.services.backends import Service

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
VIEWER, PASSWORD = "viewer", "only-looks"


@pytest.fixture
def site(postgres: tuple[Service, str], tmp_path: Path) -> Iterator[server.Server]:
    home = tmp_path / "home"
    (home / "airflow").mkdir(parents=True)
    password = tmp_path / "password"
    password.write_text(config.password_of(home / "airflow"))
    initialise = [sys.executable, str(ROOT / "deploy/init.py"), str(password)]
    viewer = ["users", "create", "--username", VIEWER, "--password", PASSWORD, "--role", "Viewer"]
    person = ["--firstname", "V", "--lastname", "W", "--email", "viewer@localhost"]
    deployment = deployments.local(
        postgres[1],
        core={"auth_manager": FAB},
        prepare=[initialise, initialise, [sys.executable, "-m", "airflow", *viewer, *person]],
    )
    try:
        yield server.start(home, deployment=deployment)
    finally:
        server.stop(home)


def test_users_and_roles(site: server.Server) -> None:
    with site.client() as admin:
        admin.unpause("retrain")
    wrong = httpx.post(f"{site.url}/auth/token", json={"username": "admin", "password": "wrong"}, trust_env=False)
    assert wrong.status_code == httpx.codes.UNAUTHORIZED
    token = httpx.post(f"{site.url}/auth/token", json={"username": VIEWER, "password": PASSWORD}, trust_env=False)
    viewer = httpx.Client(
        base_url=site.url, headers={"Authorization": f"Bearer {token.json()['access_token']}"}, trust_env=False
    )
    with viewer:
        assert viewer.get("/api/v2/dags/retrain").status_code == httpx.codes.OK
        run = {"logical_date": None, "conf": {}}
        assert viewer.post("/api/v2/dags/retrain/dagRuns", json=run).status_code == httpx.codes.FORBIDDEN
        assert viewer.patch("/api/v2/pools/gpu", json={"slots": 9}).status_code == httpx.codes.FORBIDDEN
        assert viewer.get("/api/v2/pools/gpu").json()["slots"] == 1  # deploy/init.py's
    assert httpx.get(f"{site.url}/api/v2/dags/retrain", trust_env=False).status_code == httpx.codes.UNAUTHORIZED
    assert "password" in httpx.get(f"{site.url}/auth/login/", trust_env=False).text
