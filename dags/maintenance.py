"""The DAG that removes what nobody needs and checks what everybody does."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, Param
from clean_database import CleanDatabase
from refit_execution import operators
from refit_settings import Settings, load
from task_defaults import COMMAND_TIMEOUT, TAGS, task_defaults

DOC = """\
- **retention**: `refit gc` removes old runs and what of the cache no run and no version needs; never versions.
- **verify_registry**: `refit models verify` checks the files of the live and the previous version of every model.
- **clean_database**: `airflow db clean` of records older than `airflow.clean_days`, where this worker may do that.
"""


def maintenance(settings: Settings) -> DAG:
    airflow = settings.airflow
    run = operators(settings.execution)
    with DAG(
        dag_id="maintenance",
        schedule=CronTriggerTimetable(airflow.maintenance, timezone=airflow.timezone) if airflow.maintenance else None,
        catchup=False,
        max_active_runs=1,
        params={
            "dry_run": Param(False, type="boolean", title="Dry run", description="Only say what would be removed.")
        },
        tags=TAGS,
        doc_md=DOC,
        default_args=task_defaults(settings, timeout=COMMAND_TIMEOUT),
    ) as dag:
        run.RunCommand(
            task_id="retention",
            arguments=["gc", f"--keep={airflow.keep_runs}", "{% if params.dry_run %}--dry-run{% endif %}"],
            doc_md="Remove old runs and what of the cache nothing needs.",
        )
        run.RunCommand(
            task_id="verify_registry",
            arguments=["models", "verify"],
            doc_md="Check the live and the previous version of every model against their checksums.",
            execution_timeout=timedelta(hours=4),
        )
        CleanDatabase(
            task_id="clean_database",
            days=airflow.clean_days,
            doc_md="Remove old records from Airflow's database.",
        )
    return dag


dag = maintenance(load())
