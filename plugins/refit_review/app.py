"""The pages. Each asks for a session, and for the rights that Airflow asks for the same thing.

All runs of $REFIT_HOME belong to the DAG `retrain`: who may read its runs may read them, under whatever DAG's address.
Nothing here changes anything; the way back is a run of the DAG `rollback`, which the browser starts by Airflow's own
API with the user's own session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, get_user, requires_access_dag
from airflow.configuration import conf
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from refit_review import chart, command, pages, places, registry, remote

PREFIX = "/refit"
RETRAIN, ROLLBACK = "retrain", "rollback"  # DAGs
LISTED = 30  # runs
STATIC = {"shell.css": "text/css", "shell.js": "text/javascript", "models.js": "text/javascript"}
VIEWS = {
    "report": "report",
    "data": "data validation",
    "rows": "Data Docs",
    "rows-1": "Data Docs of its rules",
    "card": "model card",
}
METRICS = {"balanced_accuracy": "Balanced accuracy", "accuracy": "Accuracy"}

_may_read = Depends(requires_access_dag("GET", DagAccessEntity.RUN, param_dag_id=RETRAIN))
# Besides, the right to the DAG whose address is used.
_may_read_dag = Depends(requires_access_dag("GET", DagAccessEntity.RUN))


def create() -> FastAPI:
    app = FastAPI(
        title="Refit review", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(get_user)]
    )
    app.add_exception_handler(AnyHTTPException, _explain)
    both = [_may_read_dag, _may_read]
    app.get("/dags/{dag_id}/report", dependencies=both)(latest)
    app.get("/dags/{dag_id}/runs/{run_id}/report", dependencies=both)(report)
    app.get("/dags/{dag_id}/runs/{run_id}/files/{name:path}", dependencies=both)(file)
    app.get("/dags/{dag_id}/runs/{run_id}/card", dependencies=both)(card_of_run)
    app.get("/models", dependencies=[_may_read])(models)
    app.get("/models/{model}/versions/{number}/card", dependencies=[_may_read])(card_of_version)
    app.get("/static/{name}")(static)
    return app


def latest(dag_id: str, show: str = "report") -> Response:
    _require_retrain(dag_id)
    problem = _brought(remote.bring_list)
    for run in places.newest():
        _brought(remote.bring, run.run_id)
        if run.page(places.REPORT):
            return _shell(run, show, others=True)
    if problem:
        raise HTTPException(404, problem)
    raise HTTPException(404, f"There is no report yet in {places.home() / 'runs'}. It appears when a run has started.")


def report(dag_id: str, run_id: str, show: str = "report") -> Response:
    _require_retrain(dag_id)
    return _shell(_run(run_id), show, others=False)


def file(dag_id: str, run_id: str, name: str) -> Response:
    _require_retrain(dag_id)
    found = _run(run_id).page(name)
    if found is None:
        raise HTTPException(404, "This run has no such page, or not yet.")
    return pages.content(*found)


def card_of_run(dag_id: str, run_id: str) -> Response:
    _require_retrain(dag_id)
    run = _run(run_id)
    if not run.has_trained:
        raise HTTPException(404, "This run has no model card yet. It is written when the final model is trained.")
    problem = _brought(remote.bring_card, run.run_id)
    path = run.file(places.CARD)
    if path is None:
        raise HTTPException(404, problem or "This run has no model card any more.")
    return pages.markdown(path.read_text(errors="replace"))


def models(user: GetUserDep, model: str | None = None, fresh: bool = False) -> Response:
    """`fresh`: after a rollback, of which an answer that is seconds old knows nothing. It leads to the address without
    it, lest every reload asks anew."""
    if fresh:
        command.forget()
        query = f"?model={quote(model, '')}" if model is not None else ""
        return RedirectResponse(f"{base()}{PREFIX}/models{query}", 303)
    _brought(remote.bring_list)
    known = registry.names()
    if not known:
        raise HTTPException(404, f"There is no model yet in {places.home()}. A run of the DAG {RETRAIN} makes one.")
    chosen = model if model is not None else known[0]
    if chosen not in known:
        raise HTTPException(404, "There is no model of this name.")
    found: dict[str, Any] = {}
    problem = None
    try:
        found = registry.versions(chosen)
    except command.Unavailable as error:
        problem = str(error)
    rows = found.get("versions", [])
    moves = found.get("moves", [])
    return pages.page(
        "models.html.j2",
        base=base(),
        models=known,
        model=chosen,
        problem=problem,
        location=found.get("location"),
        live=found.get("aliases", {}).get("live"),
        rows=list(reversed(rows)),
        been={move["version"] for move in moves},
        charts=[(name, drawn) for key, name in METRICS.items() if (drawn := chart.draw(rows, key))],
        heights=chart,
        log=_log(moves, found.get("rejections", [])),
        runs={run.run_id for run in places.newest()},
        may_roll_back=_may_roll_back(user),
        dag=RETRAIN,
        rollback=ROLLBACK,
    )


def card_of_version(model: str, number: int) -> Response:
    if model not in registry.names():
        raise HTTPException(404, "There is no model of this name.")
    try:
        text = registry.version(model, number).get("text")
    except command.Unavailable as error:
        raise HTTPException(404, str(error)) from None
    if not text:
        raise HTTPException(404, "This version has no card for people.")
    return pages.markdown(str(text))


def static(name: str) -> Response:
    if name not in STATIC:
        raise HTTPException(404, "There is no such file.")
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    return FileResponse(pages.FOLDER / "static" / name, media_type=STATIC[name], headers=headers)


def base() -> str:
    """The path below which Airflow's own pages lie, without a slash at its end."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")


def _shell(run: places.Run, show: str, *, others: bool) -> Response:
    if show not in VIEWS:
        raise HTTPException(404, "There is no such page.")
    own = f"{base()}{PREFIX}/dags/{RETRAIN}/runs/{quote(run.run_id, '')}"
    views = {}
    if run.page(places.REPORT):
        views["report"] = ("Report", f"{own}/files/{places.REPORT}")
    if run.page(places.VALIDATION):
        views["data"] = ("Data", f"{own}/files/{places.VALIDATION}")
    for place, name in enumerate(run.rows()[:2]):
        title = "Data Docs" if place == 0 else "Data Docs: rules"
        views[f"rows-{place}" if place else "rows"] = (title, f"{own}/files/{quote(name)}")
    if run.version is not None:  # complete, with the figures and the decision
        model = quote(str(run.record.get("model")), "")
        views["card"] = ("Model card", f"{base()}{PREFIX}/models/{model}/versions/{run.version}/card")
    elif run.has_trained and (remote.is_set() or run.file(places.CARD)):
        views["card"] = ("Model card", f"{own}/card")
    if not views:
        raise HTTPException(404, f"The run {run.run_id} has no report yet. It appears when the run has started.")
    note = None
    if show not in views:
        note, show = f"This run has no {VIEWS[show]}, or not yet.", next(iter(views))
    listed = [other for _, other in zip(range(LISTED), places.newest(), strict=False)] if others else []
    return pages.page(
        "run.html.j2", base=base(), run=run, views=views, show=show, note=note, listed=listed, dag=RETRAIN
    )


def _run(run_id: str) -> places.Run:
    problem = _brought(remote.bring, run_id)
    run = places.find(run_id)
    if run is None and problem:
        raise HTTPException(404, problem)
    if run is None:
        raise HTTPException(
            404,
            f"The run {run_id} has no directory in {places.home() / 'runs'}. It has not started yet, was removed "
            "by the retention, or ran where this server cannot see it.",
        )
    return run


def _brought(bring: Callable[..., None], *arguments: str) -> str | None:
    """Bring what lies elsewhere; what was wrong, if anything. Pages then show what is here."""
    try:
        bring(*arguments)
    except command.Unavailable as error:
        return str(error)
    return None


def _require_retrain(dag_id: str) -> None:
    if dag_id != RETRAIN:
        raise HTTPException(404, f"The DAG {dag_id} makes no reports; {RETRAIN} does.")


def _may_roll_back(user: Any) -> bool:
    """As Airflow itself asks who triggers a DAG."""
    return get_auth_manager().is_authorized_dag(
        method="POST", access_entity=DagAccessEntity.RUN, details=DagDetails(id=ROLLBACK), user=user
    )


def _log(moves: list[dict[str, Any]], rejections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Newest first. A move holds `kind`, a rejection gets one."""
    everything = [*moves, *({**rejection, "kind": "reject"} for rejection in rejections)]
    return sorted(everything, key=lambda row: str(row["at"]))[::-1]  # within a second the last written comes first


async def _explain(request: Request, error: Exception) -> Response:
    """A page with the sentence; the status is what programs read."""
    status = getattr(error, "status_code", 500)
    title = {401: "Not signed in", 403: "Not allowed", 404: "Nothing to show"}.get(status, "This did not work")
    text = {
        401: "Sign in to Airflow, then open this page again.",
        403: f"Your role in Airflow does not let you read runs of the DAG {RETRAIN}.",
    }.get(status, str(getattr(error, "detail", "")))
    return pages.message(title, text, base(), status=status)
