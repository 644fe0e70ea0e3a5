"""The approval task against a stand-in for Airflow's task SDK: what it asks, and what it makes of answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import approval
import pytest
from airflow.sdk.exceptions import AirflowException, TaskAwaitingInput
from approval import POLICY, Approve

ANSWERED = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
GATE = {
    "promote": True,
    "summary": "Promote: better.",
    "approval": {"required": True, "why": "gate.approval is always."},
    "decision": "ab" * 32,
    "body": "### Decision\n\n{{ 7 * 7 }}",
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was written for people to answer."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(approval, "upsert_hitl_detail", lambda **fields: found.append(fields))
    return found


@pytest.fixture
def task() -> Approve:
    return Approve(task_id="approve", patience=timedelta(hours=3))


def context(gate: Any) -> Any:
    ti = SimpleNamespace(id="1", xcom_pull=lambda task_ids: gate)
    return {
        "ti": ti,
        "task_instance": ti,
        "run_id": "manual__2026-03-01T02:15:00+00:00",
        "dag": SimpleNamespace(dag_id="retrain"),
    }


def execute(task: Approve, gate: Any) -> Any:
    return type(task).execute.__wrapped__(task, context(gate))  # type: ignore[attr-defined]


def event(**changes: Any) -> dict[str, Any]:
    answer = {
        "chosen_options": ["Approve"],
        "params_input": {"reason": " Looks good. "},
        "responded_at": ANSWERED,
        "responded_by_user": {"id": "7", "name": "anna"},
        "timedout": False,
    }
    return answer | changes


def complete(task: Approve, answer: dict[str, Any], left: timedelta = timedelta(hours=1)) -> Any:
    deadline = (datetime.now(UTC) + left).isoformat()
    return task.execute_complete(context(GATE), answer, deadline=deadline, decision=GATE["decision"])


def test_nobody_is_asked_where_nobody_needs_to_be(task: Approve, asked: list[dict[str, Any]]) -> None:
    assert execute(task, GATE | {"approval": {"required": False, "why": "No figure is borderline."}}) == POLICY
    assert asked == []


def test_a_person_is_asked_with_what_the_gate_wrote(task: Approve, asked: list[dict[str, Any]]) -> None:
    with pytest.raises(TaskAwaitingInput) as waiting:
        execute(task, GATE)
    assert waiting.value.timeout == timedelta(hours=3)
    [question] = asked
    body, _, link = question["body"].rpartition("\n\n")
    assert body == GATE["body"], "no template"
    assert "/refit/dags/retrain/runs/manual__2026-03-01T02%3A15%3A00%2B00%3A00/report" in link
    assert question["options"] == ["Approve", "Reject"]
    assert question["defaults"] == ["Reject"]  # what the scheduler answers in time's stead
    assert question["params"]["reason"]["schema"]["minLength"] == 1


@pytest.mark.parametrize("gate", [None, {}, {"approval": None}, "text", GATE | {"approval": {}}])
def test_a_gate_without_an_answer_lets_nothing_through(task: Approve, gate: Any, asked: list[dict[str, Any]]) -> None:
    with pytest.raises(AirflowException, match="Expected the task gate to end with"):
        execute(task, gate)
    assert asked == []


@pytest.mark.parametrize(("option", "approved"), [("Approve", True), ("Reject", False)])
def test_an_answer_tells_who_when_and_why(option: str, approved: bool, task: Approve) -> None:
    assert complete(task, event(chosen_options=[option])) == {
        "approved": approved,
        "by": "anna",
        "reason": "Looks good.",
        "at": "2026-03-01T09:30:00+00:00",
        "decision": GATE["decision"],
    }


def test_time_that_runs_out_rejects(task: Approve) -> None:
    late = event(chosen_options=["Reject"], params_input={"reason": ""}, responded_by_user=None, timedout=True)
    answer = complete(task, late)
    assert (answer["approved"], answer["by"]) == (False, "nobody (timeout)")
    assert answer["reason"] == "No answer within 3 hours."
    # Whatever is in the event of one: time approves nothing.
    assert complete(task, late | {"chosen_options": ["Approve"]})["approved"] is False


@pytest.mark.parametrize(
    "changes",
    [
        {"params_input": {}},
        {"params_input": None},
        {"params_input": {"reason": "  "}},
        {"params_input": {"reason": ["x"]}},
        {"params_input": {"reason": "x" * 1001}},
        {"chosen_options": []},
        {"chosen_options": ["Approve", "Reject"]},
        {"chosen_options": ["approve"]},
    ],
    ids=str,
)
def test_what_rest_lets_through_is_asked_again_until_the_same_deadline(
    changes: dict[str, Any], task: Approve, asked: list[dict[str, Any]]
) -> None:
    with pytest.raises(TaskAwaitingInput) as waiting:
        complete(task, event(**changes), left=timedelta(minutes=20))
    assert timedelta(minutes=19) < waiting.value.timeout <= timedelta(minutes=20)
    assert waiting.value.kwargs["decision"] == GATE["decision"]
    assert len(asked) == 1
    with pytest.raises(TaskAwaitingInput) as waiting:
        complete(task, event(**changes), left=-timedelta(minutes=1))
    assert waiting.value.timeout == timedelta(seconds=1)


def test_a_lost_answer_is_no_approval(task: Approve) -> None:
    with pytest.raises(AirflowException, match="lost"):
        complete(task, {"error": "gone", "error_type": "timeout"})
