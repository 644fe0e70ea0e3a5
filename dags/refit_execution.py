"""Where tasks run: the operators that `execution.mode` asks for.

The providers are imported only where their mode is asked for: Airflow parses DAG files at every task start, and the
Kubernetes client alone takes four seconds.
"""

from __future__ import annotations

from refit_command import Tasks, tasks
from refit_settings import Execution


def operators(execution: Execution) -> Tasks:
    """`StartRun`, `RunStage` and `RunCommand` of the place."""
    match execution.mode:
        case "process":
            from process_command import ProcessCommand

            return tasks(ProcessCommand)
        case _:
            raise ValueError(f"execution.mode: expected process, got {execution.mode!r}.")
