"""The page of models on a registry that `refit` has filled."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from pipeline import files, runs
from pipeline.cli.main import app as refit_app
from pipeline.stage import DONE
from tests.pipeline.promotion.finished_run import finished_run
from tests.plugins.test_routes import refit  # noqa: F401 - autouse

Browse = Callable[..., httpx.Client]


@pytest.fixture
def registry(refit_home: Path) -> None:
    """Three versions, 2 is live again, and a fourth run that somebody has turned down."""
    asked = {"approval": {"required": True, "why": "gate.approval is always."}}
    for number in range(3):
        finished_run(
            refit_home / "runs" / f"r{number + 1}", f"m{number}", generation=number, decision=asked if number else None
        )
        assert CliRunner().invoke(refit_app, ["promote", f"r{number + 1}", "--reason", "Looks <good>"]).exit_code == 0
    assert CliRunner().invoke(refit_app, ["rollback", "--reason", "Worse on Mondays"]).exit_code == 0
    run = runs.Run(finished_run(refit_home / "runs" / "r4", "m4", generation=4, decision=asked))
    run.update(status=runs.WAITING)
    done = CliRunner().invoke(refit_app, ["approve", "r4", "--reject", "--reason", "Too few nights"])
    assert done.exit_code == 0, done.output


def test_versions_figures_and_the_audit_log(browse: Browse, registry: None) -> None:
    answer = browse("admin").get("/refit/models")
    assert answer.status_code == 200
    text = answer.text
    assert "Version <b>2</b> is live." in text
    assert "0.700 [0.600, 0.800]" in text
    assert text.count('class="point live"') == 2  # one in each figure
    assert text.count("<circle") == 6
    log = text.partition("Audit log")[2]
    order = [log.index(words) for words in ("Too few nights", "Worse on Mondays", "3 by", "nothing → 1")]
    assert order == sorted(order)
    assert "Rejected</b> by" in log
    assert "Approved by" in log
    assert "Looks &lt;good&gt;" in log
    assert "Looks <good>" not in text
    assert browse("admin").get("/refit/models/classifier/versions/2/card").status_code == 200
    assert browse("admin").get("/refit/models/classifier/versions/9/card").status_code == 404


@pytest.mark.parametrize(("role", "buttons"), [("viewer", 0), ("user", 2), ("admin", 2)])
def test_only_who_may_start_the_rollback_is_offered_it(role: str, buttons: int, browse: Browse, registry: None) -> None:
    """1 and 3 have been live and are not: those whom Airflow lets trigger the DAG, which it checks itself."""
    client = browse(role)
    text = client.get("/refit/models").text
    assert text.count("data-version=") == buttons
    assert ("models.js" in text) == bool(buttons)
    answer = client.post("/api/v2/dags/rollback/dagRuns", json={"logical_date": None, "conf": {}})
    assert answer.status_code == (404 if buttons else 403)  # this Airflow has no DAGs


def test_a_registry_that_does_not_answer_is_said(browse: Browse, registry: None, refit_home: Path) -> None:
    (refit_home / "registry/classifier/live/00000002.json").write_text("{")
    text = browse("admin").get("/refit/models").text
    assert "The registry cannot be read." in text


def test_another_model_than_there_is_is_said(browse: Browse, registry: None) -> None:
    for name in ("nothing", "../airflow", "--help", "<script>"):
        answer = browse("admin").get("/refit/models", params={"model": name})
        assert answer.status_code == 404
        assert "<script>" not in answer.text.partition("<body")[2]


def test_rejections_are_no_moves(registry: None) -> None:
    found = json.loads(CliRunner().invoke(refit_app, ["models", "--json"]).stdout)
    assert [move["kind"] for move in found["moves"]] == ["promote", "promote", "promote", "rollback"]
    assert [(row["run"], row["reason"]) for row in found["rejections"]] == [("r4", "Too few nights")]


def test_a_promoted_run_shows_the_complete_card(browse: Browse, registry: None, refit_home: Path) -> None:
    for run in ("r2", "r4"):
        (refit_home / "runs" / run / "report.html").write_text("<!doctype html>")
        files.write_text(refit_home / "runs" / run / DONE / "train@final", "")
    client = browse("viewer")
    card = "/refit/models/classifier/versions/2/card"
    assert f'src="{card}"' in client.get("/refit/dags/retrain/runs/r2/report?show=card").text
    text = client.get(card).text
    assert "<h2>Decision</h2>" in text
    assert "accuracy floor" in text
    # One that was turned down has the stub that training wrote.
    rejected = client.get("/refit/dags/retrain/runs/r4/report?show=card").text
    assert 'src="/refit/dags/retrain/runs/r4/card"' in rejected


def test_who_finds_the_registry_busy_does_not_wait_for_long(
    browse: Browse, registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refit_review import command as asked

    monkeypatch.setattr(asked, "_QUEUE", 0.05)
    client = browse("viewer")
    with asked._lock:
        text = client.get("/refit/models").text
    assert "somebody else is asking" in text
    assert "Version <b>2</b> is live." in client.get("/refit/models").text


def test_after_a_rollback_the_page_is_new_and_its_address_as_before(browse: Browse, registry: None) -> None:
    client = browse("viewer")
    assert "Version <b>2</b> is live." in client.get("/refit/models").text
    done = CliRunner().invoke(refit_app, ["rollback", "--to", "1", "--reason", "Older still"])
    assert done.exit_code == 0, done.output
    answer = client.get("/refit/models?model=classifier&fresh=true")
    assert (answer.status_code, answer.headers["location"]) == (303, "/refit/models?model=classifier")
    assert "Version <b>1</b> is live." in client.get(answer.headers["location"]).text
    evil = client.get("/refit/models", params={"model": "//evil.example\r\nX: y&fresh=true#", "fresh": "true"})
    assert evil.headers["location"] == "/refit/models?model=%2F%2Fevil.example%0D%0AX%3A%20y%26fresh%3Dtrue%23"


def test_what_is_forgotten_while_it_is_asked_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from refit_review import command as asked

    answers, waiting = iter(["before", "after"]), []

    def run(arguments: tuple[str, ...]) -> str:
        answer = next(answers)
        if answer == "before":
            other = threading.Thread(target=asked.forget, daemon=True)
            other.start()
            other.join(5)
            waiting.append(other.is_alive())
        return answer

    monkeypatch.setattr(asked, "_run", run)
    assert [asked.text("models") for _ in range(3)] == ["before", "after", "after"]
    assert waiting == [False], "to forget takes a thread for as long as the registry is slow"
