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
        case "docker":
            from docker_command import docker_command

            return tasks(docker_command(execution.docker))  # type: ignore[arg-type]
        case "kubernetes":
            from kubernetes_command import kubernetes_command

            return tasks(kubernetes_command(execution.kubernetes))  # type: ignore[arg-type]
