"""The retraining DAG, generated from dvc.yaml: one task per stage, `train` mapped over its parts, then `promote`.

Every task runs one `refit` command in the run's workspace, so the graph here and the graph of `dvc repro` are one.
Training takes a slot of the pool `gpu`, which must exist: with one slot the parts run one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import notifications
from airflow.sdk import (
    DAG,
    AssetOrTimeSchedule,
    AsyncCallback,
    CronTriggerTimetable,
    DeadlineAlert,
    DeadlineReference,
    TaskGroup,
)
from approval import Approve
from form import form
from new_data import new_data
from notifications import Notice
from refit_execution import operators
from refit_settings import ROOT, Airflow, Settings, load, read
from stage_graph import Stage, read_stages
from task_defaults import STAGE_TIMEOUT, TAGS, task_defaults

GPU_POOL = "gpu"
TRAINING_TIMEOUT = timedelta(hours=24)  # of one part
NOTHING_NEW = "--skip-if-nothing-new"
GROUPS = {  # how the graph is folded in the UI; ids of tasks are those of stages all the same
    "data": ("What the model learns from", ("ingest", "profile", "validate", "shard")),
    "training": ("One model for each fold, and the final one", ("train",)),
    "judgement": ("What is to be known of the model, and the decision", ("evaluate", "diagnose", "serve", "gate")),
}


def retrain(stages: tuple[Stage, ...], settings: Settings, params: Mapping[str, Any]) -> DAG:
    """The DAG of `stages`, which are in the order of dvc.yaml. `params`: all of params.yaml."""
    run = operators(settings.execution)
    asset = new_data(settings)
    with DAG(
        dag_id="retrain",
        schedule=_schedule(settings.airflow, asset),
        catchup=False,
        max_active_runs=1,
        params=form(params),
        tags=TAGS,
        doc_md=_documentation(stages),
        default_args=task_defaults(settings, timeout=STAGE_TIMEOUT),
        deadline=_deadline(settings.airflow),
    ) as dag:
        start = run.StartRun(
            task_id="start", doc_md="Create the run's workspace from the last good run, with the settings given."
        )
        groups = {name: TaskGroup(name, prefix_group_id=False, tooltip=about) for name, (about, _) in GROUPS.items()}
        tasks: dict[str, Any] = {}
        for stage in stages:
            with _group(groups, stage.name):
                if stage.mapped:
                    tasks[stage.name] = run.RunStage.partial(
                        task_id=stage.name,
                        stage=stage.name,
                        doc_md=stage.description,
                        pool=GPU_POOL,
                        execution_timeout=TRAINING_TIMEOUT,
                        map_index_template="{{ task.part }}",
                    ).expand(part=start.output)
                else:
                    # What has no stage before it looks for new data, and may find none.
                    options = () if stage.upstream else (NOTHING_NEW,)
                    tasks[stage.name] = run.RunStage(
                        task_id=stage.name, stage=stage.name, options=options, doc_md=stage.description
                    )
        for stage in stages:
            tasks[stage.name].set_upstream([tasks[name] for name in sorted(stage.upstream)] or start)
        promote = run.RunStage(
            task_id="promote",
            stage="promote",
            options=["--approval={{ ti.xcom_pull(task_ids='approve') | tojson }}"],
            doc_md="Make the model live if the gate decided so and nobody has rejected it; otherwise change nothing.",
            on_success_callback=Notice("decided", settings.airflow.notify),
        )
        approve = Approve(
            task_id="approve",
            patience=timedelta(hours=settings.airflow.approval_timeout_hours),
            notifiers=[Notice("waiting", settings.airflow.notify)],
            doc_md="Wait for a person to approve or reject, if `gate.approval` and the decision ask for one.",
        )
        tasks["gate"] >> approve >> promote
        if asset is not None:
            recheck = run.RunCommand(
                task_id="recheck",
                arguments=["pending"],
                outlets=[asset],
                doc_md="Look once more for files that no run has read, and start the next run if there are any: they "
                "may have come after this one listed the source.",
            )
            recheck.set_upstream(promote)
    return dag


def _schedule(airflow: Airflow, asset: Any) -> Any:
    cron = CronTriggerTimetable(airflow.schedule, timezone=airflow.timezone) if airflow.schedule else None
    if cron and asset:
        return AssetOrTimeSchedule(timetable=cron, assets=asset)
    return cron or ([asset] if asset else None)


def _deadline(airflow: Airflow) -> DeadlineAlert | None:
    if airflow.deadline_hours is None:
        return None
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=airflow.deadline_hours),
        callback=AsyncCallback(notifications.late),
    )


def _group(groups: Mapping[str, TaskGroup], stage: str) -> AbstractContextManager[Any]:
    return next((groups[name] for name, (_, members) in GROUPS.items() if stage in members), nullcontext())


def _documentation(stages: tuple[Stage, ...]) -> str:
    lines = [f"- **{stage.name}**: {stage.description}" for stage in stages]
    return "\n".join(
        [
            "Retrain an image classifier and promote it if it is better than the live one.",
            "",
            *lines,
            "",
            "The run's page is `$REFIT_HOME/runs/<run>/report.html`. A run that finds nothing new skips all stages.",
        ]
    )


dag = retrain(read_stages(ROOT / "dvc.yaml"), load(), read())
