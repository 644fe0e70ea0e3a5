"""Runs of a machine that shares nothing with this server but a bucket."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from pipeline import files, runs
from pipeline.report.build import build as build_report
from pipeline.runs.repository import repository
from pipeline.runs.sharing import hand_on
from pipeline.settings import code_root, read_params
from pipeline.stage import DONE
from tests import aws
from tests.plugins.test_routes import refit  # noqa: F401 - autouse

Browse = Callable[..., httpx.Client]


@pytest.fixture
def elsewhere(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The empty REFIT_HOME of this server, after another machine has begun the run `far`."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    params = yaml.safe_load((code_root() / "params.yaml").read_text())
    with aws.one_at_a_time() as address:
        aws.configure(monkeypatch, address)
        bucket = aws.new_bucket()
        params["execution"]["remote"] = f"s3://{bucket}/refit"
        params["registry"]["location"] = f"s3://{bucket}/models"
        for machine in ("theirs", "ours"):
            home = tmp_path / machine
            home.mkdir()
            (home / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
            monkeypatch.setenv("REFIT_HOME", str(home))
            if machine == "theirs":
                chosen = read_params(home / "params.yaml")
                chosen["ingest"]["source"] = str(source)
                run = runs.create("far", chosen, scheduled=True)
                build_report(run.path)
                runs.publish(run)
        yield home


def test_their_reports_are_brought_here(browse: Browse, elsewhere: Path) -> None:
    assert not (elsewhere / "runs").exists()
    client = browse("viewer")
    assert "far" in client.get("/refit/dags/retrain/report").text
    page = client.get("/refit/dags/retrain/runs/far/files/report.html")
    assert page.status_code == 200
    assert page.text == (elsewhere / "runs/far/report.html").read_text()


def test_the_card_that_training_wrote_is_brought_here(
    browse: Browse, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a reviewer reads before anything is promoted; DVC keeps it, beside the model."""
    from refit_review import command

    client, card = browse("viewer"), "/refit/dags/retrain/runs/far/card"
    assert ">Model card<" not in client.get("/refit/dags/retrain/runs/far/report").text
    assert client.get(card).status_code == 404
    monkeypatch.setenv("REFIT_HOME", str(elsewhere.parent / "theirs"))
    train(runs.find("far"), "# Card of far")
    monkeypatch.setenv("REFIT_HOME", str(elsewhere))
    command.forget()
    assert f'src="{card}"' in client.get("/refit/dags/retrain/runs/far/report?show=card").text
    answer = client.get(card)
    assert (answer.status_code, "<h1>Card of far</h1>" in answer.text) == (200, True), answer.text
    assert not (elsewhere / "runs/far/models/final/model.keras").exists(), "the card alone is wanted"


def train(run: runs.Run, card: str) -> None:
    """Leave what the stage leaves, a model of a few bytes, and hand it on."""
    for name, text in {
        "models/final/card.md": card,
        "models/final/model.keras": "weights",
        "logs/final/log": "",
        "plots/curves/final.csv": "",
    }.items():
        files.write_text(run.path / name, text)
    graph = yaml.safe_load((run.path / "dvc.yaml").read_text())
    del graph["stages"]["train"]["deps"]  # which other stages would have to make
    files.write_text(run.path / "dvc.yaml", yaml.safe_dump(graph, sort_keys=False))
    with repository(run.path) as repo:
        repo.commit("train@final", force=True)
    hand_on(run, "train@final")
    files.write_text(run.path / DONE / "train@final", "")
    runs.publish(run)


def test_a_run_that_nobody_has_is_said(browse: Browse, elsewhere: Path) -> None:
    answer = browse("viewer").get("/refit/dags/retrain/runs/nowhere/report")
    assert answer.status_code == 404
    assert "no run" in answer.text
