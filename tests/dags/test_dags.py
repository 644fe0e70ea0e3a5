"""The four DAGs under several settings: when they start, what they run, and what Airflow makes of them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import maintenance
import pytest
import retrain
import rollback
import watch
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronTriggerTimetable
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from inbox_trigger import InboxTrigger
from refit_settings import Settings, read
from sqs_trigger import SqsTrigger
from stage_graph import read_stages

ROOT = Path(__file__).parents[2]
QUEUE = "https://sqs.eu-central-1.amazonaws.com/1/new"


def settings(source: str | None = None, **changes: Any) -> Settings:
    params = read()
    return Settings.model_validate(
        {**params, "ingest": {"source": source}, "airflow": {**params["airflow"], **changes}}
    )


def graph(chosen: Settings) -> DAG:
    return retrain.retrain(read_stages(ROOT / "dvc.yaml"), chosen, read())


def assets(dag: DAG) -> list[Any]:
    """That start it."""
    condition = getattr(dag.timetable, "asset_condition", None)
    return list(getattr(condition, "objects", [condition] if isinstance(condition, Asset) else []))


def arguments(task: Any, **context: Any) -> list[str]:
    """What `refit` gets, with the templates filled in."""
    templates = jinja2.Environment(undefined=jinja2.StrictUndefined)
    return [text for part in task.arguments if (text := templates.from_string(part).render(context))]


def test_by_default_nothing_starts_by_itself() -> None:
    for dag in (graph(settings()), watch.watch(settings()), maintenance.maintenance(settings())):
        assert not dag.timetable.can_be_scheduled
        assert assets(dag) == []
    assert "recheck" not in graph(settings()).task_ids


def test_by_cron() -> None:
    dag = graph(settings(schedule="0 3 * * *", timezone="Europe/Berlin"))
    assert isinstance(dag.timetable, CronTriggerTimetable)
    assert (dag.timetable.expression, str(dag.timetable.timezone)) == ("0 3 * * *", "Europe/Berlin")
    assert not dag.catchup


@pytest.mark.parametrize(
    ("changes", "trigger", "expected"),
    [
        ({"source": "/photos", "watch": "directory"}, InboxTrigger, {"directory": "/photos", "quiet_seconds": 60.0}),
        (
            {"source": "s3://b/p", "watch": "sqs", "sqs_queue": QUEUE},
            SqsTrigger,
            {"queue": QUEUE, "source": "s3://b/p"},
        ),
    ],
    ids=["directory", "sqs"],
)
def test_by_new_data(changes: dict[str, Any], trigger: type, expected: dict[str, Any]) -> None:
    chosen = settings(**changes)
    dag = graph(chosen)
    [asset] = assets(dag)
    [watcher] = asset.watchers
    assert type(watcher.trigger) is trigger
    path, kwargs = watcher.trigger.serialize()
    assert path == f"{trigger.__module__}.{trigger.__name__}", "which the triggerer imports"
    assert kwargs.items() >= expected.items()
    assert watcher.trigger.hash(path, kwargs) == trigger(**kwargs).hash(*trigger(**kwargs).serialize())
    # The end of a run and the sweep look at the same place and wake up the same DAG.
    recheck = dag.get_task("recheck")
    look = watch.watch(chosen).get_task("look")
    assert recheck.upstream_task_ids == {"promote"}
    for task in (recheck, look):
        assert task.outlets == [asset]
        assert arguments(task) == ["pending"]


def test_by_either() -> None:
    dag = graph(settings(source="/photos", watch="directory", schedule="0 3 * * *"))
    assert isinstance(dag.timetable, AssetOrTimeSchedule)
    assert dag.timetable.timetable.expression == "0 3 * * *"
    assert [asset.name for asset in assets(dag)] == ["new-images"]


def test_a_sweep_alone_is_enough() -> None:
    chosen = settings(source="s3://b", sweep="*/30 * * * *")
    assert watch.watch(chosen).timetable.expression == "*/30 * * * *"
    [asset] = assets(graph(chosen))
    assert not asset.watchers


def test_a_deadline_is_told_of_from_the_triggerer() -> None:
    [alert] = graph(settings(deadline_hours=6)).deadline
    assert alert.interval.total_seconds() == 6 * 3600
    assert alert.callback.path == "notifications.late"
    assert not graph(settings()).deadline


def test_groups_fold_the_graph_and_leave_ids_alone() -> None:
    dag = graph(settings())
    groups = {name: set(group.children) for name, group in dag.task_group.get_task_group_dict().items() if name}
    assert groups == {
        "data": {"ingest", "profile", "validate", "shard"},
        "training": {"train"},
        "judgement": {"evaluate", "diagnose", "serve", "gate"},
    }


@pytest.mark.parametrize(
    "build",
    [
        lambda: graph(settings(source="/photos", watch="directory", schedule="0 3 * * *", deadline_hours=6)),
        lambda: watch.watch(settings(source="/photos", sweep="0 * * * *")),
        lambda: rollback.rollback(settings()),
        lambda: maintenance.maintenance(settings(maintenance="0 4 * * 0")),
    ],
    ids=["retrain", "watch", "rollback", "maintenance"],
)
def test_every_dag_is_documented_owned_bounded_and_survives_serialization(build: Callable[[], DAG]) -> None:
    dag = build()
    assert dag.doc_md
    assert dag.tags == {"refit"}
    assert dag.max_active_runs == 1
    for task in dag.tasks:
        assert task.doc_md, task.task_id
        assert task.owner == "refit"
        assert task.execution_timeout.total_seconds() > 0
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_ids == dag.task_ids


def test_a_rollback_is_never_tried_again() -> None:
    [task] = rollback.rollback(settings()).tasks
    assert task.retries == 0


def test_a_rollback_says_who_and_why() -> None:
    [task] = rollback.rollback(settings()).tasks
    by = {"dag_run": {"triggering_user_name": "alice"}}
    entered = {"model": "pets", "to": "3", "reason": "--worse; on $(Mondays) {{ 7*7 }}"}
    assert arguments(task, params=entered, **by) == [
        "rollback",
        "--model=pets",
        "--to=3",
        "--reason=--worse; on $(Mondays) {{ 7*7 }} (alice, in Airflow)",
    ]
    nobody = {"dag_run": {"triggering_user_name": None}}
    assert arguments(task, params={**entered, "to": None, "reason": "bad"}, **nobody) == [
        "rollback",
        "--model=pets",
        "--reason=bad",
    ]


@pytest.mark.parametrize(
    "entered",
    [
        {},
        {"reason": ""},
        {"reason": "  "},
        {"reason": "x", "to": "0"},
        {"reason": "x", "to": "live; rm"},
        {"reason": "x", "model": "Up"},
    ],
    ids=str,
)
def test_a_rollback_needs_a_reason_and_a_version(entered: dict[str, Any]) -> None:
    params = rollback.rollback(settings()).params
    with pytest.raises(ParamValidationError):
        params.update(entered)
        params.validate()


def test_maintenance_counts_only_in_a_dry_run() -> None:
    task = maintenance.maintenance(settings(keep_runs=7)).get_task("retention")
    assert arguments(task, params={"dry_run": False}) == ["gc", "--keep=7"]
    assert arguments(task, params={"dry_run": True}) == ["gc", "--keep=7", "--dry-run"]


def test_no_module_of_ours_hides_an_installed_one() -> None:
    """The folder goes before all packages on the triggerer's path."""
    ours = {path.stem for path in (ROOT / "dags").glob("*.py")}
    assert not ours & importlib.metadata.packages_distributions().keys()
