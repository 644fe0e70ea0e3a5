"""Who sees what, and that nothing outside of a run is served."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from pipeline import runs
from pipeline.stage import DONE

Browse = Callable[..., httpx.Client]

AIRFLOW_ID = "manual__2026-03-01T02:15:00+00:00"
RUN = f"/refit/dags/retrain/runs/{quote(AIRFLOW_ID, '')}"
ROUTES = [
    "/refit/dags/retrain/report",
    f"{RUN}/report",
    f"{RUN}/files/report.html",
    f"{RUN}/card",
    "/refit/models",
    "/refit/models/classifier/versions/1/card",
    "/refit/static/shell.css",
]


@pytest.fixture(autouse=True)
def refit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`refit` of this checkout, whatever is installed."""
    from refit_review import command

    script = tmp_path / "refit"
    root = str(Path(__file__).parents[2])
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {root!r})\nfrom pipeline.cli.main import app\napp()\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(command, "REFIT", script)
    command.forget()


def routes_of(app: object) -> set[str]:
    return {route.path for route in app.routes}  # type: ignore[attr-defined]


def test_every_route_is_tried_here_and_none_describes_the_app() -> None:
    from refit_review.app import create

    assert routes_of(create()) == {
        "/dags/{dag_id}/report",
        "/dags/{dag_id}/runs/{run_id}/report",
        "/dags/{dag_id}/runs/{run_id}/files/{name:path}",
        "/dags/{dag_id}/runs/{run_id}/card",
        "/models",
        "/models/{model}/versions/{number}/card",
        "/static/{name}",
    }


@pytest.mark.parametrize("route", ROUTES)
def test_nobody_sees_anything_without_a_session(route: str, browse: Browse, run: Path) -> None:
    answer = browse().get(route)
    assert answer.status_code == 401
    assert "The report" not in answer.text
    forged = browse()
    forged.cookies.set("_token", "forged")
    assert forged.get(route).status_code in {401, 403}


@pytest.mark.parametrize("route", [route for route in ROUTES if "static" not in route])
def test_a_user_without_the_right_to_the_runs_is_refused(
    route: str, browse: Browse, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    asked = []

    def refuse(self: object, *, method: str, user: object, access_entity: object, details: object) -> bool:
        asked.append((method, getattr(access_entity, "name", None), details.id))  # type: ignore[attr-defined]
        return False

    client = browse("admin")
    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", refuse)
    answer = client.get(route)
    assert answer.status_code == 403
    assert "The report" not in answer.text
    assert set(asked) == {("GET", "RUN", "retrain")}


def test_the_right_to_another_dag_shows_no_report(browse: Browse, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", lambda self, *, details, **rest: details.id == "others")
    for route in ("report", f"runs/{AIRFLOW_ID}/report", f"runs/{AIRFLOW_ID}/files/report.html"):
        assert browse("admin").get(f"/refit/dags/others/{route}").status_code == 403


@pytest.mark.parametrize("role", ["viewer", "user", "op", "admin"])
def test_each_role_reads_a_report_under_a_policy_that_runs_nothing(role: str, browse: Browse, run: Path) -> None:
    client = browse(role)
    shell = client.get(f"{RUN}/report")
    assert shell.status_code == 200
    address = f"/refit/dags/retrain/runs/{run.name}/files/report.html"
    assert f'src="{address}"' in shell.text
    assert "script-src 'self'" in shell.headers["content-security-policy"]
    assert "unsafe" not in shell.headers["content-security-policy"]

    report = client.get(address)
    assert (report.status_code, report.text) == (200, (run / "report.html").read_text())
    policy = report.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'none'", "form-action 'none'", "frame-ancestors 'self'"} <= set(policy)
    [sandbox] = [rule for rule in policy if rule.startswith("sandbox")]
    assert "allow-scripts" not in sandbox
    for answer in (shell, report):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_pages_of_a_run_are_offered_as_far_as_they_are_there(browse: Browse, run: Path) -> None:
    client = browse("viewer")
    text = client.get(f"{RUN}/report?show=rows").text
    assert [title in text for title in (">Report<", ">Data<", ">Data Docs<", ">Model card<")] == [True] * 4
    assert "data_docs/validations/images/r/t/b.html" in text
    assert client.get(f"{RUN}/files/reports/validation/data_docs/expectations/images.html").status_code == 200
    assert client.get(f"{RUN}/files/reports/validation/verdict.json").headers["content-type"].startswith("text/plain")

    for name in ("reports/validation", "models"):
        (run / name).rename(run / f"{Path(name).name}-gone")
    text = client.get(f"{RUN}/report?show=card").text
    assert ">Report<" in text
    assert ">Model card<" not in text
    assert "This run has no model card, or not yet." in text
    assert client.get(f"{RUN}/card").status_code == 404


def test_the_card_of_the_run_before_is_not_shown_as_this_one_s(browse: Browse, run: Path) -> None:
    """A run begins with the outputs of the last good one, the final model among them."""
    (run / DONE / "train@final").unlink()
    client = browse("viewer")
    assert (run / "models/final/card.md").exists()
    assert "This run has no model card, or not yet." in client.get(f"{RUN}/report?show=card").text
    assert client.get(f"{RUN}/card").status_code == 404


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/refit/dags/retrain/runs/other/report", "has no directory in"),
        ("/refit/dags/watch/report", "makes no reports"),
        ("/refit/dags/watch/runs/other/report", "makes no reports"),
        (f"{RUN}/report?show=passwords", "no such page"),
        *[
            (f"/refit/dags/retrain/runs/begun/report?show={show}", "has no report yet")
            for show in ("report", "data", "rows", "rows-1", "card")
        ],
        ("/refit/dags/retrain/runs/begun/report?show=passwords", "no such page"),
        ("/refit/dags/retrain/runs/begun/card", "no model card"),
    ],
)
def test_what_is_not_there_is_said(name: str, says: str, browse: Browse, run: Path) -> None:
    (run.parent / "begun").mkdir()
    answer = browse("viewer").get(name)
    assert (answer.status_code, says in answer.text) == (404, True), answer.text


def test_without_a_home_there_is_a_sentence(browse: Browse, refit_home: Path) -> None:
    assert not refit_home.exists()
    client = browse("viewer")
    for route in ("/refit/dags/retrain/report", f"{RUN}/report", f"{RUN}/files/report.html", "/refit/models"):
        answer = client.get(route)
        assert answer.status_code == 404, route
        assert "<main>" in answer.text


def test_the_newest_run_with_a_report_is_the_latest(browse: Browse, run: Path) -> None:
    for name, begun, page in (
        ("older", "2026-01-01", True),
        ("newer", "2026-12-01", True),
        ("bare", "2026-12-31", False),
    ):
        folder = run.parent / name
        folder.mkdir()
        record = {"run_id": name, "model": "classifier", "status": "running", "created_at": f"{begun}T00:00:00+00:00"}
        (folder / "run.json").write_text(json.dumps(record))
        if page:
            (folder / "report.html").write_text("<!doctype html>")
    (run.parent / ".tmp-half").mkdir()
    (run.parent / "damaged").mkdir()
    (run.parent / "damaged/run.json").write_text("{")
    text = browse("viewer").get("/refit/dags/retrain/report").text
    assert 'src="/refit/dags/retrain/runs/newer/files/report.html"' in text
    assert "/refit/dags/retrain/runs/older/report" in text


@pytest.fixture
def secrets(refit_home: Path, run: Path) -> Path:
    """Files around the runs that nobody may get."""
    for name in ("airflow/passwords.json", "runs/report.html", "report.html", "airflow/report.html"):
        path = refit_home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("SECRET")
    (run / "params.secret").write_text("SECRET")
    (run / "linked").symlink_to(refit_home / "airflow")
    (run.parent / "elsewhere").symlink_to(refit_home / "airflow")
    (run / "reports/validation/data_docs/link.html").symlink_to(refit_home / "airflow/passwords.json")
    (run / "reports/validation/data_docs/inner").symlink_to(refit_home / "airflow")
    return refit_home


@pytest.mark.parametrize(
    "path",
    [
        f"{RUN}/files/../report.html",
        f"{RUN}/files/%2e%2e/report.html",
        f"{RUN}/files/%252e%252e/report.html",
        f"{RUN}/files/..%2f..%2fairflow%2fpasswords.json",
        f"{RUN}/files/reports/validation/data_docs/%2e%2e/%2e%2e/%2e%2e/%2e%2e/report.html",
        f"{RUN}/files/reports/validation/data_docs/link.html",
        f"{RUN}/files/reports/validation/data_docs/inner/report.html",
        f"{RUN}/files/linked/report.html",
        f"{RUN}/files/params.secret",
        f"{RUN}/files/%2freport.html",
        f"{RUN}/files//report.html",
        f"{RUN}/files/report.html%00",
        f"{RUN}/files/..%5creport.html",
        f"{RUN}/files/run.json",
        "/refit/dags/retrain/runs/../files/report.html",
        "/refit/dags/retrain/runs/%2e%2e/files/report.html",
        "/refit/dags/retrain/runs/%2e/files/report.html",
        "/refit/dags/retrain/runs/..%2fairflow/files/report.html",
        "/refit/dags/retrain/runs/elsewhere/files/report.html",
        "/refit/static/..%2fapp.py",
        "/refit/static/%2e%2e%2f%2e%2e%2frefit_plugin.py",
        "/refit/models/..%2f..%2fairflow/versions/1/card",
    ],
)
def test_nothing_outside_of_a_runs_pages_is_served(path: str, browse: Browse, secrets: Path) -> None:
    # httpx would normalise dots away; the raw path is what an attacker sends.
    client = browse("admin")
    request = client.build_request("GET", "http://testserver/")
    request.url = request.url.copy_with(raw_path=path.encode())
    answer = client.send(request)
    assert "SECRET" not in answer.text
    assert answer.status_code != 200 or "<title>Airflow</title>" in answer.text, answer.text[:300]


def test_run_ids_are_folders_by_the_rule_of_the_command() -> None:
    from refit_review import places

    for text in (AIRFLOW_ID, "scheduled__2026-01-01T00:00:00+00:00", "..x", "a/b", "ä b", "x" * 300):
        assert places.safe_id(text) == runs.safe_id(text)
    assert places.safe_id("..") == ""


def test_a_label_with_markup_stays_text(browse: Browse, run: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    card = f"# Card\n\n| class |\n| --- |\n| {evil} |\n\n<script>alert(2)</script> [a](javascript:alert(3)) ![b](http://x/y)\n"
    (run / "models/final/card.md").write_text(card)
    answer = browse("viewer").get(f"{RUN}/card")
    body = answer.text.partition("<body>")[2]
    assert answer.status_code == 200
    assert "<td>&lt;img src=x" in body
    assert not any(tag in body for tag in ("<img", "<script", "<a "))
    assert "sandbox" in answer.headers["content-security-policy"]
