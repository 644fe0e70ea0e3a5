"""The retraining DAG, generated from dvc.yaml: one task per stage, `train` mapped over its parts, then `promote`.

Every task runs one `refit` command in the run's workspace, so the graph here and the graph of `dvc repro` are one.
Training takes a slot of the pool `gpu`, which must exist: with one slot the parts run one after the other.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, ExceptionRetryPolicy, Param, RetryAction, RetryRule
from approval import Approve
from refit_command import TransientFailure
from refit_execution import operators
from refit_settings import ROOT, Settings, load
from stage_graph import Stage, read_stages

GPU_POOL = "gpu"
STAGE_TIMEOUT = timedelta(hours=4)
TRAINING_TIMEOUT = timedelta(hours=24)  # of one part
NOTHING_NEW = "--skip-if-nothing-new"

PARAMS = {
    "source": Param(
        None,
        type=["null", "string"],
        title="Source",
        description="Directory or s3://bucket/prefix with one folder per class. Empty: ingest.source of params.yaml.",
    ),
    "set": Param(
        [],
        type="array",
        items={"type": "string", "pattern": r"^[a-z_]+(\.[a-z_]+)+="},
        title="Settings of this run",
        description="One section.key=value per line; params.yaml lists and explains every key.",
    ),
}


def retrain(stages: tuple[Stage, ...], settings: Settings) -> DAG:
    """The DAG of `stages`, which are in the order of dvc.yaml."""
    run = operators(settings.execution)
    with DAG(
        dag_id="retrain",
        schedule=None,
        catchup=False,
        max_active_runs=1,
        params=PARAMS,
        tags=["refit"],
        doc_md=_documentation(stages),
        default_args={
            "owner": "refit",
            "retries": 2,
            "retry_delay": timedelta(minutes=1),
            "retry_policy": ExceptionRetryPolicy(
                rules=[RetryRule(TransientFailure, RetryAction.RETRY, reason="the same command may succeed later")],
                default=RetryAction.FAIL,
            ),
            "execution_timeout": STAGE_TIMEOUT,
        },
    ) as dag:
        start = run.StartRun(
            task_id="start", doc_md="Create the run's workspace from the last good run, with the settings given."
        )
        tasks: dict[str, Any] = {}
        for stage in stages:
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
        )
        approve = Approve(
            task_id="approve",
            patience=timedelta(hours=settings.airflow.approval_timeout_hours),
            doc_md="Wait for a person to approve or reject, if `gate.approval` and the decision ask for one.",
        )
        tasks["gate"] >> approve >> promote
    return dag


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


dag = retrain(read_stages(ROOT / "dvc.yaml"), load())
