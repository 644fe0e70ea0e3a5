"""The DAG that looks for files which no run has read, whatever became of the events that should have told of them."""

from __future__ import annotations

from airflow.sdk import DAG, CronTriggerTimetable
from new_data import new_data
from refit_execution import operators
from refit_settings import Settings, load
from task_defaults import COMMAND_TIMEOUT, TAGS, task_defaults

DOC = """\
Compare `ingest.source` with what the newest run has read, and start `retrain` if there is anything else.

It runs at the times of `airflow.sweep`. What `airflow.watch` watches for starts `retrain` by itself; this is for events
that were lost, or came while `retrain` was paused. Without either setting it only says what is pending.
"""


def watch(settings: Settings) -> DAG:
    airflow = settings.airflow
    asset = new_data(settings)
    with DAG(
        dag_id="watch",
        schedule=CronTriggerTimetable(airflow.sweep, timezone=airflow.timezone) if airflow.sweep else None,
        catchup=False,
        max_active_runs=1,
        tags=TAGS,
        doc_md=DOC,
        default_args=task_defaults(settings, timeout=COMMAND_TIMEOUT),
    ) as dag:
        operators(settings.execution).RunCommand(
            task_id="look",
            arguments=["pending"],
            outlets=[asset] if asset else [],
            doc_md="Success wakes up `retrain`; skipped: nothing is pending.",
        )
    return dag


dag = watch(load())
