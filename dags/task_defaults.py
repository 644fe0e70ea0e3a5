"""What all tasks have in common: their owner, what is retried, how long they may take, who is told of a failure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from notifications import Notice
from refit_command import TransientFailure
from refit_settings import Settings

OWNER = "refit"
TAGS = ["refit"]
STAGE_TIMEOUT = timedelta(hours=4)
COMMAND_TIMEOUT = timedelta(minutes=30)


def task_defaults(settings: Settings, *, timeout: timedelta) -> dict[str, Any]:
    """The `default_args` of a DAG."""
    return {
        "owner": OWNER,
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_policy": ExceptionRetryPolicy(
            rules=[RetryRule(TransientFailure, RetryAction.RETRY, reason="the same command may succeed later")],
            default=RetryAction.FAIL,
        ),
        "execution_timeout": timeout,
        "on_failure_callback": Notice("failed", settings.airflow.notify),
    }
