"""`airflow db clean` as a task.

Airflow gives tasks no connection to its database: it hides the setting from the task's process and from all that this
starts. What stays readable is the installation's own configuration, airflow.cfg or a *_CMD or *_SECRET variable, if the
worker has it (the embedded Airflow and workers that share the scheduler's configuration do). Where it has not, the task
is skipped and says so.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import process_death
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException
from refit_command import RefitFailure

SETTING = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
# Set by Airflow in every task's process: a connection that leads nowhere, and the mark of code that may not have one.
HIDDEN = (SETTING, "AIRFLOW__CORE__SQL_ALCHEMY_CONN", "_AIRFLOW_PROCESS_CONTEXT")
INDIRECT = (f"{SETTING}_CMD", f"{SETTING}_SECRET")


class CleanDatabase(BaseOperator):
    """Remove records that are older than `days`; None: none. With the param `dry_run` it only counts them."""

    _process: subprocess.Popen[str] | None = None

    def __init__(self, *, days: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.days = days

    def execute(self, context: Context) -> None:
        process_death.end_with_parent()
        if self.days is None:
            raise AirflowSkipException("airflow.clean_days is null.")
        environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        if not knows_database(environment):
            raise AirflowSkipException(
                "This worker knows no connection to Airflow's database, as it should be. Run `airflow db clean "
                f"--clean-before-timestamp DATE` where the scheduler runs, or set {INDIRECT[0]} for this worker."
            )
        before = datetime.now(UTC) - timedelta(days=self.days)
        command = [sys.executable, "-m", "airflow", "db", "clean", "--skip-archive", "--yes"]
        command += ["--clean-before-timestamp", before.isoformat(timespec="seconds")]
        command += ["--dry-run"] if context["params"].get("dry_run") else []
        self.log.info("Running %s", command)
        # Started through `process_death`: SIGKILL of this process would leave it at work, unseen, beside the retry's.
        self._process = subprocess.Popen(
            [sys.executable, process_death.__file__, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
        with process_death.stopped_on_error(self._process):
            for line in self._process.stdout or ():
                self.log.info(line.rstrip())
            status = self._process.wait()
        if status:
            raise RefitFailure(f"airflow db clean ended with status {status}; its output is above.")

    def on_kill(self) -> None:
        if self._process is not None:
            process_death.stop(self._process)


def knows_database(environment: Mapping[str, str]) -> bool:
    """Whether a process with this environment finds a connection that somebody has set (not Airflow's default)."""
    if any(name in environment for name in INDIRECT):
        return True
    home = Path(environment.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read(environment.get("AIRFLOW_CONFIG") or home / "airflow.cfg")
    except configparser.Error:
        return False
    names = ("sql_alchemy_conn", "sql_alchemy_conn_cmd", "sql_alchemy_conn_secret")
    return any(config.has_option("database", name) for name in names)
