"""The DAG that makes an earlier version live again."""

from __future__ import annotations

from airflow.sdk import DAG, Param
from notifications import Notice
from refit_execution import operators
from refit_settings import Settings, load
from task_defaults import COMMAND_TIMEOUT, TAGS, task_defaults

DOC = """\
Make an earlier version of a model live again, after verifying its checksums.

Without *to* it goes back to the version before the live one, and each further run goes one further back. That is why
the task is never tried again: look at what is live (`refit models`) before you clear it.
"""
# Whoever reads the audit log wants a person, not the worker's account.
BY = "{% if dag_run.triggering_user_name %} ({{ dag_run.triggering_user_name }}, in Airflow){% endif %}"


def rollback(settings: Settings) -> DAG:
    with DAG(
        dag_id="rollback",
        schedule=None,
        catchup=False,
        max_active_runs=1,
        params={
            "model": Param(
                settings.promote.model,
                type="string",
                pattern="^[a-z0-9][a-z0-9_-]{0,63}$",
                title="Model",
                description="Name in the registry.",
            ),
            "to": Param(
                None,
                type=["null", "string"],
                pattern="^([1-9][0-9]*|previous)$",
                title="To",
                description="A version that was live before. Empty: the one before the live one.",
            ),
            "reason": Param(
                type="string",
                minLength=1,
                maxLength=1000,
                pattern=r"\S",
                title="Reason",
                description="It goes into the audit log.",
            ),
        },
        tags=TAGS,
        doc_md=DOC,
        # A retry after a move that was made but not reported would go one version further back.
        default_args={**task_defaults(settings, timeout=COMMAND_TIMEOUT), "retries": 0},
    ) as dag:
        operators(settings.execution).RunCommand(
            task_id="rollback",
            arguments=[
                "rollback",
                "--model={{ params.model }}",
                "{% if params.to %}--to={{ params.to }}{% endif %}",
                f"--reason={{{{ params.reason }}}}{BY}",
            ],
            doc_md="Move the live pointer. Never tried again by itself.",
            on_success_callback=Notice("rolled back", settings.airflow.notify),
        )
    return dag


dag = rollback(load())
