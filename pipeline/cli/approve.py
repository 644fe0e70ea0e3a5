"""`refit approve`: a person's answer to a run that waits for it, in Airflow or here."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline import runs
from pipeline.cli import airflow_api
from pipeline.cli.airflow_api import Airflow, Login
from pipeline.cli.errors import clear_errors
from pipeline.cli.promote import decision_of, promoted, say_outcome
from pipeline.cli.text import shown
from pipeline.errors import DataError, PromotionRefused, RefitError, SettingsError
from pipeline.promotion import approval
from pipeline.report.build import build as build_report
from pipeline.runs import Run
from pipeline.settings import refit_home

DAG_ID, TASK_ID = "retrain", "approve"  # of dags/retrain.py
APPROVE, REJECT = "Approve", "Reject"
AWAITING = {"awaiting_input", "deferred"}

SETTLED_SECONDS = 5.0

console = Console(soft_wrap=True)


def approve(
    run_id: Annotated[str, typer.Argument(help="A run, as `refit runs` or Airflow lists it.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the audit log.")],
    reject: Annotated[bool, typer.Option("--reject", help="Turn it down: what is live stays live.")] = False,
    url: Annotated[
        str | None, typer.Option(envvar=airflow_api.URL, help="Airflow's address. Without it: the one of $REFIT_HOME.")
    ] = None,
    user: Annotated[str | None, typer.Option(help=f"Who answers; or {airflow_api.USER}.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help=f"File with the user's password; or {airflow_api.PASSWORD_FILE}.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with a token of Airflow's; or the token itself in {airflow_api.TOKEN}.")
    ] = None,
) -> None:
    """Approve a run that waits for it, or reject it with --reject.

    A run that Airflow drives is answered there, and its next task promotes or records the rejection; a run of
    `refit run` is promoted here and now.

    The first login that is given counts: --token-file, then --user and --password-file, then the environment's, its
    token first. Secrets of the environment are for an Airflow that is named, never for the one of $REFIT_HOME.
    """
    with clear_errors():
        answer = approval.own(reason, approved=not reject)
        current = _here(run_id)
        if current is not None and not current.record["scheduled"]:
            _carry_out(current, answer)
            return
        airflow = _airflow(url, _login(token_file, user, password_file, os.environ if url is not None else {}))
        waiting = _waiting(airflow, run_id, current)
        time.sleep(_too_early(waiting))
        option = REJECT if reject else APPROVE
        said = airflow.answer(
            DAG_ID, waiting["task_instance"]["dag_run_id"], TASK_ID, option, {"reason": answer.reason}
        )
        name = (said.get("responded_by") or {}).get("name", "you")
        done = "rejected" if reject else "approved"
        console.print(f"Run {shown(run_id)} is [bold]{done}[/] by {shown(str(name))}. Airflow goes on with it.")


def _here(run_id: str) -> Run | None:
    try:
        return runs.find(run_id)
    except DataError:  # it may be on Airflow's machines alone
        return None


def _carry_out(current: Run, answer: approval.Approval) -> None:
    decided = decision_of(current)
    if decided is None or current.record["status"] != runs.WAITING:
        raise _not_waiting(current.run_id, current)
    runs.require_idle(current)
    promotion = promoted(current, answer=answer, asked=runs.WAITING)
    build_report(current.path)
    runs.publish(current)
    say_outcome(current, promotion)


def _login(token_file: Path | None, user: str | None, password_file: Path | None, secrets: Mapping[str, str]) -> Login:
    """What was typed, else what the environment holds: the audit log names whose login it is."""
    if token_file is not None:
        return Login(_content(token_file))
    if user is None and password_file is None and (token := secrets.get(airflow_api.TOKEN)):
        return Login(token)
    file = password_file or secrets.get(airflow_api.PASSWORD_FILE)
    return Login(None, user or os.environ.get(airflow_api.USER), Path(file) if file else None)


def _airflow(url: str | None, login: Login) -> Airflow:
    """Raises `SettingsError` if no Airflow is named and none is up in $REFIT_HOME."""
    if url is not None:
        return Airflow(url, login)
    own = refit_home() / "airflow"
    try:
        address = str(json.loads((own / "processes.json").read_text())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        raise SettingsError(
            f"No Airflow was named, and none runs in {refit_home()}.",
            fix=f"set {airflow_api.URL}, or start one with `make ui`",
        ) from None
    if login.token is None and login.password_file is None:
        login = Login(None, login.user or airflow_api.EMBEDDED_USER, own / "passwords.json")
    return Airflow(address, login)


def _waiting(airflow: Airflow, run_id: str, current: Run | None) -> dict[str, Any]:
    """The question of the run that nobody has answered yet."""
    try:
        wanted = runs.safe_id(run_id)
        asked = [
            question
            for question in airflow.questions(DAG_ID, TASK_ID)
            if runs.safe_id(question["task_instance"]["dag_run_id"]) == wanted
        ]
        for question in asked:
            if question["task_instance"]["state"] in AWAITING and not question["response_received"]:
                return question
    except (KeyError, TypeError) as error:
        raise RefitError(f"Airflow at {airflow.url} answers in another form ({error}).", fix="update Refit") from None
    answered = next((question for question in asked if question["response_received"]), None)
    if answered is None:
        raise _not_waiting(run_id, current)
    by = (answered.get("responded_by_user") or {}).get("name") or "nobody, in time"
    chosen = ", ".join(answered.get("chosen_options") or [])
    raise PromotionRefused(
        f"The run {run_id} was answered already: {chosen} by {by} at {answered.get('responded_at')}.",
        fix="clear the task approve in Airflow to be asked again",
    )


def _too_early(question: Mapping[str, Any]) -> float:
    """Seconds until an answer is safe. Airflow 3.3 takes the executor's news that the task has stopped to ask for the
    end of the task that goes on with the answer, if that comes first: it fails it, and the question is asked again."""
    try:
        age = (datetime.now(UTC) - datetime.fromisoformat(question["created_at"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return 0.0
    return min(max(SETTLED_SECONDS - age, 0.0), SETTLED_SECONDS)


def _not_waiting(run_id: str, current: Run | None) -> PromotionRefused:
    status = f"; its status is {current.record['status']}" if current is not None else ""
    return PromotionRefused(f"The run {run_id} does not wait for approval{status}.", fix="`refit runs` lists the runs")


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"--token-file: {path} cannot be read ({error.strerror}).", fix="check it") from None
