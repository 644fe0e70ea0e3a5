"""`refit approve` against a stand-in for Airflow's REST API, and for runs that no scheduler drives."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline import files, runs
from pipeline.cli import main
from pipeline.cli.main import app
from pipeline.promotion.registry import Registry
from pipeline.settings import code_root
from tests.pipeline.promotion.finished_run import finished_run
from tests.servers import running

ASKS = {"approval": {"required": True, "why": "gate.approval is always."}}
RUN_ID = "manual__2026-03-01T02:15:00+00:00"
SAFE_ID = "manual__2026-03-01T02_15_00_00_00"
PASSWORD, TOKEN = "correct horse", "token-of-anna"


def question(run_id: str, state: str = "awaiting_input", **more: Any) -> dict[str, Any]:
    task = {"dag_run_id": run_id, "state": state}
    return {"task_instance": task, "response_received": False, "responded_by_user": None, **more}


class Airflow(ThreadingHTTPServer):
    """`questions`: what it asks; `status`: what it answers to PATCH; `calls`: what it was asked; `tokens`: as whom."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.questions = [question("manual__other"), question(RUN_ID)]
        self.status = 200
        self.calls: list[tuple[str, str, Any]] = []
        self.tokens: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Airflow

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = json.loads(body) if body else None
        self.server.calls.append((self.command, self.path, content))
        self.server.tokens.append(self.headers.get("Authorization"))
        if self.path == "/auth/token":
            known = content == {"username": "anna", "password": PASSWORD}
            return self.say(201 if known else 401, {"access_token": TOKEN} if known else {"detail": "Invalid"})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.say(401, {"detail": "Not authenticated"})
        if self.command == "PATCH":
            return self.say(self.server.status, {"detail": "no", "responded_by": {"id": "1", "name": "anna"}})
        offset = int(self.path.rpartition("offset=")[2])
        page = self.server.questions[offset : offset + 1]  # of one each: it pages
        return self.say(200, {"hitl_details": page, "total_entries": len(self.server.questions)})

    do_GET = do_POST = do_PATCH = handle_any  # noqa: N815 - as http.server calls them

    def say(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", "http://elsewhere.invalid/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    with running(Airflow()) as server:
        yield server


@pytest.fixture
def embedded(airflow: Airflow, refit_home: Path) -> Airflow:
    """Known by the files of the embedded Airflow alone."""
    files.write_json(refit_home / "airflow/processes.json", {"url": airflow.url, "processes": []})
    files.write_json(refit_home / "airflow/passwords.json", {"admin": "other", "anna": PASSWORD})
    return airflow


@pytest.fixture
def approve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for name in ("URL", "TOKEN", "USER", "PASSWORD_FILE"):
        monkeypatch.delenv(f"REFIT_AIRFLOW_{name}", raising=False)

    def call(*arguments: str, reason: str = "Looks good", **environment: str) -> Result:
        done = CliRunner(env=environment).invoke(app, ["approve", *arguments, f"--reason={reason}"])
        assert PASSWORD not in done.output + done.stderr
        assert TOKEN not in done.output + done.stderr
        return done

    return call


@pytest.mark.parametrize("run_id", [RUN_ID, SAFE_ID], ids=["of Airflow", "of the folder"])
@pytest.mark.parametrize(("flag", "option"), [([], "Approve"), (["--reject"], "Reject")])
def test_the_waiting_run_is_answered(
    run_id: str, flag: list[str], option: str, embedded: Airflow, approve: Callable[..., Result]
) -> None:
    done = approve(run_id, *flag, "--user=anna")
    assert done.exit_code == 0, done.stderr
    assert f"{'rejected' if flag else 'approved'} by anna" in done.stdout
    method, path, body = embedded.calls[-1]
    place = "manual__2026-03-01T02%3A15%3A00%2B00%3A00/taskInstances/approve/-1/hitlDetails"
    assert (method, path) == ("PATCH", f"/api/v2/dags/retrain/dagRuns/{place}")
    assert body == {"chosen_options": [option], "params_input": {"reason": "Looks good"}}


def test_an_airflow_elsewhere_is_named_by_the_environment(
    airflow: Airflow, approve: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    for login in (
        {"REFIT_AIRFLOW_TOKEN": TOKEN},
        {"REFIT_AIRFLOW_USER": "anna", "REFIT_AIRFLOW_PASSWORD_FILE": str(tmp_path / "password")},
    ):
        assert approve(RUN_ID, REFIT_AIRFLOW_URL=airflow.url, **login).exit_code == 0
    assert approve(RUN_ID, f"--token-file={tmp_path / 'token'}", f"--url={airflow.url}/").exit_code == 0
    assert [call[0] for call in airflow.calls].count("PATCH") == 3


def test_the_login_that_is_typed_answers_not_that_of_the_environment(
    airflow: Airflow, approve: Callable[..., Result], tmp_path: Path
) -> None:
    """Its token is somebody else's, in whose name the answer would go into the audit log."""
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "token").write_text(TOKEN)
    others = {"REFIT_AIRFLOW_URL": airflow.url, "REFIT_AIRFLOW_TOKEN": "token-of-ben"}
    file = {"REFIT_AIRFLOW_PASSWORD_FILE": str(tmp_path / "password")}
    assert approve(RUN_ID, f"--token-file={tmp_path / 'token'}", **others).exit_code == 0
    assert approve(RUN_ID, "--user=anna", f"--password-file={tmp_path / 'password'}", **others).exit_code == 0
    assert approve(RUN_ID, "--user=anna", **others, **file).exit_code == 0
    assert "No credentials" in approve(RUN_ID, "--user=anna", **others).stderr
    assert "does not accept" in approve(RUN_ID, REFIT_AIRFLOW_USER="anna", **others, **file).stderr, "the token first"
    assert airflow.tokens.count("Bearer token-of-ben") == 1


def test_secrets_of_the_environment_are_not_for_the_airflow_that_nobody_named(
    embedded: Airflow, approve: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("of elsewhere")
    secrets = {"REFIT_AIRFLOW_TOKEN": "of-elsewhere", "REFIT_AIRFLOW_PASSWORD_FILE": str(tmp_path / "password")}
    assert approve(RUN_ID, REFIT_AIRFLOW_USER="anna", **secrets).exit_code == 0
    assert set(embedded.tokens) == {None, f"Bearer {TOKEN}"}
    assert embedded.calls[0][2] == {"username": "anna", "password": PASSWORD}


@pytest.mark.parametrize(
    ("status", "exit_status", "words"),
    [
        (401, 65, "does not accept the credentials"),
        (403, 65, "does not let this user answer"),
        (409, 65, "has been answered meanwhile"),
        (503, 75, "is not ready"),
        (302, 65, "redirects"),
        (400, 65, "answered 400 (no)"),
    ],
)
def test_what_airflow_refuses_is_explained(
    status: int, exit_status: int, words: str, embedded: Airflow, approve: Callable[..., Result]
) -> None:
    embedded.status = status
    done = approve(RUN_ID, "--user=anna")
    assert (done.exit_code, words in done.stderr, "Fix: " in done.stderr) == (exit_status, True, True), done.stderr


def test_a_run_that_does_not_wait_is_said(embedded: Airflow, approve: Callable[..., Result]) -> None:
    assert "does not wait for approval" in approve("manual__unknown", "--user=anna").stderr
    embedded.questions = [
        question(RUN_ID, "success", response_received=True, chosen_options=["Reject"])
        | {"responded_by_user": {"id": "2", "name": "ben"}, "responded_at": "2026-03-01T09:30:00Z"}
    ]
    done = approve(RUN_ID, "--user=anna")
    assert (done.exit_code, "was answered already: Reject by ben" in done.stderr) == (65, True)
    assert not any(call[0] == "PATCH" for call in embedded.calls)


def test_wrong_credentials_and_no_server_are_said(
    embedded: Airflow, approve: Callable[..., Result], refit_home: Path, tmp_path: Path
) -> None:
    done = approve(RUN_ID)  # as admin, whose password is another
    assert (done.exit_code, "does not accept the credentials" in done.stderr) == (65, True)
    assert "has no password of 'nobody'" in approve(RUN_ID, "--user=nobody").stderr
    assert "cannot be read" in approve(RUN_ID, f"--password-file={tmp_path / 'none'}", "--user=anna").stderr
    done = approve(RUN_ID, REFIT_AIRFLOW_URL="http://127.0.0.1:1", REFIT_AIRFLOW_TOKEN=TOKEN)
    assert (done.exit_code, "does not answer" in done.stderr) == (75, True)
    for url in ("ftp://x", f"http://anna:{PASSWORD}@127.0.0.1:1", "nonsense"):
        done = approve(RUN_ID, REFIT_AIRFLOW_URL=url, REFIT_AIRFLOW_TOKEN=TOKEN)
        assert (done.exit_code, "expected an address" in done.stderr) == (78, True)
    assert "No credentials" in approve(RUN_ID, REFIT_AIRFLOW_URL=embedded.url).stderr
    assert approve(RUN_ID, REFIT_AIRFLOW_URL=embedded.url, REFIT_AIRFLOW_TOKEN=f"{TOKEN}\nx").exit_code == 65
    (refit_home / "airflow/processes.json").unlink()
    assert "No Airflow was named" in approve(RUN_ID).stderr


def test_a_reason_is_needed(approve: Callable[..., Result], embedded: Airflow) -> None:
    assert "a reason was not given" in approve(RUN_ID, reason=" ").stderr
    assert "at most 1000 characters, got 1001" in approve(RUN_ID, reason="x" * 1001).stderr
    assert embedded.calls == []


@pytest.fixture
def waiting(refit_home: Path) -> Path:
    """A run of `refit run` that waits."""
    run = finished_run(refit_home / "runs" / "r1", decision=ASKS)
    runs.Run(run).update(status=runs.WAITING)
    return run


def test_of_two_answers_at_once_the_second_is_told(waiting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody rejects it while the approved model is being published."""
    command = [Path(sys.executable).with_name("refit"), "approve", "r1", "--reject", "--reason", "Too few nights"]
    started: list[subprocess.Popen[str]] = []
    publish = Registry.publish

    def slow(self: Registry, content: Any) -> int:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        while not any(opened.path.endswith("deciding.lock") for opened in psutil.Process(process.pid).open_files()):
            assert process.poll() is None
            time.sleep(0.05)
        return publish(self, content)  # for which it waits now

    monkeypatch.setattr(Registry, "publish", slow)
    assert CliRunner().invoke(app, ["approve", "r1", "--reason", "Looks good"]).exit_code == 0
    _, said = started[0].communicate(timeout=60)
    assert started[0].returncode == 65
    assert "was promoted while this answer was given" in said
    registry = runs.registry("classifier")
    assert (len(registry.history()), registry.rejections()) == (1, [])


def test_a_run_without_a_scheduler_is_promoted_here(waiting: Path, approve: Callable[..., Result]) -> None:
    done = approve("r1")
    assert done.exit_code == 0, done.stderr
    [move] = runs.registry("classifier").history()
    assert (move["approval"]["reason"], move["approval"]["approved"]) == ("Looks good", True)
    assert runs.find("r1").record["status"] == runs.PROMOTED
    assert "does not wait for approval; its status is promoted" in approve("r1").stderr
    listed = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["models"]).stdout
    assert ", approved by" in listed
    assert "(Looks good)" in listed


def test_a_rejection_here_is_told_by_models_runs_and_the_report(waiting: Path, approve: Callable[..., Result]) -> None:
    done = approve("r1", "--reject", reason="Too few nights")
    assert (done.exit_code, "Nothing was changed." in done.stdout) == (0, True)
    assert runs.registry("classifier").pointer().version is None
    assert runs.find("r1").record["status"] == runs.REJECTED
    listed = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["models"]).stdout
    assert "run r1 was rejected by" in listed
    assert "Too few nights" in listed
    [row] = json.loads(CliRunner().invoke(app, ["runs", "--json"]).stdout)
    assert (row["run_id"], row["status"]) == ("r1", "rejected")
    page = (waiting / "report.html").read_text()
    assert "Rejected by" in page
    assert "Too few nights" in page


def test_promote_is_the_callers_approval_and_needs_a_reason(waiting: Path) -> None:
    refused = CliRunner().invoke(app, ["promote", "r1"])
    assert (refused.exit_code, "--reason" in refused.stderr) == (65, True)
    assert CliRunner().invoke(app, ["promote", "r1", "--reason", "checked by hand"]).exit_code == 0
    [move] = runs.registry("classifier").history()
    assert move["approval"]["reason"] == move["reason"] == "checked by hand"
    assert CliRunner().invoke(app, ["promote", "r1"]).exit_code == 0, "again, it is done already"


def test_a_scheduler_hands_the_answer_over(waiting: Path) -> None:
    runs.Run(waiting).update(scheduled=True)
    (waiting / "dvc.yaml").write_bytes((code_root() / "dvc.yaml").read_bytes())
    stage = ["stage", "promote", "--run-id=r1"]
    assert "asks for a person's approval" in CliRunner().invoke(app, stage).stderr
    assert "asks for a person's approval" in CliRunner().invoke(app, [*stage, '--approval="policy"']).stderr
    assert CliRunner().invoke(app, [*stage, "--approval=null"]).exit_code == 78
    assert runs.registry("classifier").pointer().version is None
    answer = {"approved": True, "by": "anna", "reason": "ok", "at": "2026-03-01T09:30:00+00:00", "decision": None}
    assert CliRunner().invoke(app, [*stage, f"--approval={json.dumps(answer)}"]).exit_code == 0
    assert runs.registry("classifier").history()[0]["approval"]["by"] == "anna"


def test_a_run_that_asks_ends_waiting_and_tells_how_to_answer(
    waiting: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stages are done; what `refit run` does after them."""
    run = runs.Run(waiting)
    run.update(status=runs.RUNNING)
    monkeypatch.setattr(main.runs, "stage_names", lambda current: [])
    main._run(run, force=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Waiting for approval." in shown
    assert "gate.approval is always." in shown
    assert "refit approve r1 --reason TEXT" in shown
    assert run.record["status"] == runs.WAITING
    assert run.record["owner"] is None
    assert runs.registry("classifier").versions() == []
    assert "Waiting for approval" in (waiting / "report.html").read_text()
    assert runs.parent_of("classifier") == run, "later runs build on its data"


def test_an_answer_waits_until_the_question_has_settled() -> None:
    from pipeline.cli.approve import _too_early

    def asked(seconds_ago: float) -> float:
        return _too_early({"created_at": (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()})

    assert asked(0.1) > 0.0
    assert asked(1) <= 4.0
    assert asked(60) == 0.0
    assert asked(-3600) == 5.0, "a clock that is ahead makes nobody wait for long"
    assert _too_early({}) == 0.0
