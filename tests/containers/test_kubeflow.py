"""The Kubeflow package in kfp's own local runner, whose steps are containers of the real images."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.dags.test_embedded import SETTINGS, draw

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]


def test_it_runs_in_kfp_s_local_runner(images: docker.DockerClient, engine_address: str, tmp_path: Path) -> None:
    """Then again, with nothing new."""
    if not (interpreter := os.environ.get("REFIT_KFP_PYTHON")):
        pytest.skip("REFIT_KFP_PYTHON names no interpreter that has kfp: make test-docker")
    home, photos = tmp_path / "home", tmp_path / "photos"
    home.mkdir()
    draw(photos, range(24))
    # Whoever made the folders, kfp's among them, which it mounts itself.
    user = f"{os.getuid()}:{os.getgid()}"
    command = [interpreter, str(ROOT / "tests/kubeflow/run_locally.py"), str(home), str(photos), user]
    settings = [text for text in SETTINGS if not text.startswith("promote.")]

    def run(run_id: str) -> dict[str, Any]:
        done = subprocess.run(
            [*command, json.dumps(settings), run_id],
            env={**os.environ, "DOCKER_HOST": engine_address},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        record: dict[str, Any] = json.loads((home / f"runs/{run_id}/run.json").read_text())
        return record

    assert run("one")["status"] == "promoted"
    assert json.loads((home / "runs/one/promotion.json").read_text())["version"] == 1
    assert run("two")["status"] == "nothing_new"
