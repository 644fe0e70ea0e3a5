"""The task between gate and promote: a person decides, where the gate asks for one.

It returns what `refit stage promote --approval` takes: "policy" where nobody was to be asked, else
`{"approved", "by", "reason", "at", "decision"}`. A rejection is an answer, so the task succeeds and `promote` runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context, Param, conf
from airflow.sdk.exceptions import AirflowException, TaskAwaitingInput
from airflow.sdk.execution_time.hitl import upsert_hitl_detail

POLICY = "policy"
REASON = "reason"
REASON_LENGTH = 1000  # characters, as `refit` takes
# Of the form alone. As a param of the task its empty value would fail the task before anybody is asked.
FIELD = Param(
    "",
    type="string",
    minLength=1,
    maxLength=REASON_LENGTH,
    title="Reason",
    description="Why you approve or reject. It goes into the audit log, with your name.",
)
NOBODY = "nobody (timeout)"
NOT_ASKED = "The gate has not answered yet."


class Approve(ApprovalOperator):
    """Asks with what the task `gate` has printed. An answer without a reason is asked again, within the same time."""

    # Not templates: the text comes from labels and settings, and is set when the task runs.
    template_fields = ()

    def __init__(self, *, patience: timedelta, gate: str = "gate", params: Any = None, **kwargs: Any) -> None:
        """`patience`: until when an answer is waited for. `params` are the DAG's, which are no fields of this form."""
        super().__init__(
            subject="Shall this model go live?",
            body=NOT_ASKED,
            defaults=self.REJECT,
            response_timeout=patience,
            **kwargs,
        )
        self.gate = gate

    @property
    def serialized_params(self) -> dict[str, dict[str, Any]]:
        return {REASON: FIELD.serialize()}

    def execute(self, context: Context) -> Any:
        asked = context["ti"].xcom_pull(task_ids=self.gate)
        try:
            required, why = bool(asked["approval"]["required"]), str(asked["approval"]["why"])
            body, decision = str(asked["body"]), str(asked["decision"])
        except (KeyError, TypeError):
            raise AirflowException(
                f'Expected the task {self.gate} to end with {{"approval": …, "body": …}}, got {asked!r}.'
            ) from None
        if not required:
            self.log.info("Nobody is asked. %s", why)
            return POLICY
        self.body = f"{body}\n\n{_report(context)}"
        self._ask(context)
        deadline = datetime.now(UTC) + self.response_timeout
        for notifier in self.notifiers:
            notifier(context)
        self.log.info("Waiting for an answer until %s. %s", deadline.isoformat(timespec="seconds"), why)
        raise TaskAwaitingInput(
            method_name="execute_complete",
            kwargs={"deadline": deadline.isoformat(), "decision": decision},
            timeout=self.response_timeout,
        )

    def execute_complete(self, context: Context, event: Mapping[str, Any], deadline: str, decision: str) -> Any:
        if "error" in event:
            raise AirflowException(f"The answer was lost: {event['error']}")
        if event.get("timedout"):
            hours = self.response_timeout.total_seconds() / 3600
            return self._answer(False, NOBODY, f"No answer within {hours:g} hours.", datetime.now(UTC), decision)
        chosen, reason = event["chosen_options"], (event["params_input"] or {}).get(REASON)
        problem = _problem(chosen, reason)
        if problem is None:
            by = (event["responded_by_user"] or {}).get("name") or "unknown"
            return self._answer(chosen == [self.APPROVE], by, str(reason).strip(), event["responded_at"], decision)
        left = datetime.fromisoformat(deadline) - datetime.now(UTC)
        self.log.error("This answer does not count: %s It is asked again.", problem)
        self._ask(context)  # takes the answer away
        raise TaskAwaitingInput(
            method_name="execute_complete",
            kwargs={"deadline": deadline, "decision": decision},
            timeout=max(left, timedelta(seconds=1)),
        )

    def _ask(self, context: Context) -> None:
        upsert_hitl_detail(
            ti_id=context["task_instance"].id,
            options=self.options,
            subject=self.subject,
            body=self.body,
            defaults=self.defaults,
            multiple=False,
            params=self.serialized_params,
            assigned_users=self.assigned_users,
        )

    def _answer(self, approved: bool, by: str, reason: str, at: datetime, decision: str) -> dict[str, Any]:
        self.log.info("%s by %s: %s", "Approved" if approved else "Rejected", by, reason)
        return {
            "approved": approved,
            "by": by,
            "reason": reason,
            "at": at.isoformat(timespec="seconds"),
            "decision": decision,
        }


def _problem(chosen: Any, reason: Any) -> str | None:
    """REST takes any answer, so what the form checks is checked here."""
    if chosen not in ([Approve.APPROVE], [Approve.REJECT]):
        return f"Expected one of {Approve.APPROVE} and {Approve.REJECT}, got {chosen!r}."
    if not isinstance(reason, str) or not reason.strip():
        return "Expected a reason, got none."
    if len(reason.strip()) > REASON_LENGTH:
        return f"Expected a reason of at most {REASON_LENGTH} characters, got {len(reason)}."
    return None


def _report(context: Context) -> str:
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    dag_id, run_id = quote(context["dag"].dag_id, ""), quote(context["run_id"], "")
    return f"[Report of this run]({base}/refit/dags/{dag_id}/runs/{run_id}/report)"
