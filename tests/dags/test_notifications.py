"""What people are told, through the providers' own notifiers and a web server and a mail server on loopback."""

from __future__ import annotations

import asyncio
import json
import socketserver
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import notifications
import pytest
from notifications import Message, Notice
from refit_settings import Notify

from tests.servers import running

NOBODY = {"slack_webhook": None, "slack": None, "slack_channel": None, "smtp": None, "smtp_to": (), "http": None}


@pytest.fixture
def posted() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(port of a web server, what was posted to it)."""
    found: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield server.server_port, found


@pytest.fixture
def mailed() -> Iterator[tuple[int, list[str]]]:
    """(port of a mail server, the mails that it got)."""
    found: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                if line.upper().startswith(b"DATA"):
                    self.wfile.write(b"354 go on\r\n")
                    mail = b""
                    while (part := self.rfile.readline()) != b".\r\n":
                        mail += part
                    found.append(mail.decode())
                self.wfile.write(b"250 fine\r\n")
                if line.upper().startswith(b"QUIT"):
                    return

    with running(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as server:
        yield server.server_address[1], found


def context(xcoms: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    task = SimpleNamespace(
        dag_id="retrain",
        task_id="shard",
        map_index=-1,
        xcom_pull=lambda task_ids: (xcoms or {}).get(task_ids),
    )
    return {"ti": task, "run_id": "manual__1+00:00", "params": {"model": "pets"}, **more}


def test_a_failure_names_run_model_task_cause_and_link(posted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port, found = posted
    monkeypatch.setenv("AIRFLOW_CONN_TOLD", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/ui/")
    # Neither is a template, whoever wrote it.
    Notice("failed", Notify(**{**NOBODY, "http": "told"}))(context(exception="bad file {{ 7*7 }} {% x"))
    [message] = found
    assert message["text"] == (
        "Refit: pets: failed\nshard failed: bad file {{ 7*7 }} {% x\n"
        "Run manual__1+00:00 of retrain: https://airflow.example/ui/dags/retrain/runs/manual__1%2B00%3A00"
    )
    assert (message["kind"], message["model"], message["run"]) == ("failed", "pets", "manual__1+00:00")


def test_slack_and_mail_get_it_escaped(posted: Any, mailed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (web, found), (smtp, mails) = posted, mailed
    monkeypatch.setenv(
        "AIRFLOW_CONN_HOOK",
        json.dumps({"conn_type": "slackwebhook", "host": f"http://127.0.0.1:{web}", "password": "T/B/x"}),
    )
    monkeypatch.setenv(
        "AIRFLOW_CONN_MAIL",
        json.dumps(
            {"conn_type": "smtp", "host": "127.0.0.1", "port": smtp}
            | {"extra": {"disable_ssl": True, "disable_tls": True, "from_email": "refit@example.org"}}
        ),
    )
    notify = Notify(**{**NOBODY, "slack_webhook": "hook", "smtp": "mail", "smtp_to": ("on-call@example.org",)})
    Notice("failed", notify)(context(exception="<!channel> & <b>"))
    assert "shard failed: &lt;!channel&gt; &amp; &lt;b&gt;" in found[0]["text"]
    [mail] = mails
    assert "Subject: Refit: pets: failed" in mail
    assert "To: on-call@example.org" in mail


def test_one_that_fails_neither_fails_the_task_nor_silences_the_others(
    posted: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port, found = posted
    monkeypatch.setenv("AIRFLOW_CONN_TOLD", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", f"http://127.0.0.1:{port}/broken")
    notify = {**NOBODY, "smtp": "no-such-connection", "smtp_to": ("a@example.org",)}
    Notice("failed", Notify(**notify, **{}))(context())
    Notice("failed", Notify(**{**notify, "http": "told"}))(context())
    assert len(found) == 1
    assert caplog.text.count("Nobody was told by smtp") == 2
    Notice("failed", Notify(**{**NOBODY, "http": "told"}))({"no": "context"})
    assert len(found) == 1
    assert "Nobody was told" in caplog.text


def test_verdicts_come_from_the_gate() -> None:
    verdict = {"promote": False, "summary": "Refused: accuracy."}
    assert notifications.message("decided", context({"gate": verdict})).what == "Refused: accuracy."
    assert "Refused: accuracy." in notifications.message("waiting", context({"gate": verdict})).what
    assert "report" in notifications.message("decided", context({"gate": None, "approve": "policy"})).what
    answer = {"approved": False, "by": "alice", "reason": "too few cats"}
    told = notifications.message("decided", context({"gate": {**verdict, "summary": "Promote."}, "approve": answer}))
    assert told.what == "Promote. Rejected by alice: too few cats"
    rolled = context(params={"model": "pets", "reason": "worse on Mondays"})
    assert "worse on Mondays" in notifications.message("rolled back", rolled).what


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, "classifier"),
        ({"model": None, "set": []}, "classifier"),
        ({"model": "pets", "set": ["train.seed=1"]}, "pets"),
        ({"model": "pets", "set": ["promote.model=cats", "promote.model='dogs'"]}, "dogs"),
    ],
    ids=str,
)
def test_the_model_is_the_one_that_the_run_is_of(params: dict[str, Any], expected: str) -> None:
    assert notifications.message("failed", context(params=params)).model == expected


def test_a_late_run_is_told_of_from_the_triggerer(
    posted: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, refit_home: Any
) -> None:
    import yaml
    from refit_settings import read

    port, found = posted
    monkeypatch.setenv("AIRFLOW_CONN_TOLD", f"http://127.0.0.1:{port}")
    params = read()
    params["airflow"] |= {"deadline_hours": 6, "notify": {**NOBODY, "smtp_to": [], "http": "told"}}
    refit_home.mkdir()
    (refit_home / "params.yaml").write_text(yaml.safe_dump(params))
    run = {"dag_id": "retrain", "dag_run_id": "r1", "conf": {"model": "pets"}}
    asyncio.run(notifications.late({"dag_run": run}))
    assert found[0]["what"] == "Not done after 6 hours; it goes on."
    assert found[0]["model"] == "pets"


def test_nobody_is_asked_for_when_nobody_is_to_be_told() -> None:
    told = Message("failed", "retrain", "r", "m", "x", "l")
    assert list(notifications.notifiers(Notify(**NOBODY), told)) == []
