"""Tells people of failures, decisions and runs that are late, by the connections that `airflow.notify` names.

A notifier that fails is logged and changes nothing: the run is what matters. Texts are passed as they are, never
through Jinja, since file names and errors in them are other people's.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import quote

from airflow.sdk import BaseNotifier
from airflow.sdk.configuration import conf
from refit_settings import Notify, load

logger = logging.getLogger(__name__)
LONGEST = 2000  # characters of an explanation; Slack cuts at 4000
Kind = Literal["failed", "decided", "waiting", "rolled back", "late"]


@dataclass(frozen=True)
class Message:
    kind: Kind
    dag: str
    run: str
    model: str
    what: str  # the task that failed, the verdict
    link: str  # to the run in Airflow

    @property
    def subject(self) -> str:
        return f"Refit: {self.model}: {self.kind}"

    @property
    def text(self) -> str:
        return "\n".join([f"{self.subject}", self.what, f"Run {self.run} of {self.dag}: {self.link}"])


class Notice(BaseNotifier):
    """Airflow's callback, and notifier of its own operators, that tells of one kind of event."""

    def __init__(self, kind: Kind, notify: Notify) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.to = notify

    def notify(self, context: Any) -> None:
        _tell(self.to, lambda: message(self.kind, context))


async def late(context: Mapping[str, Any]) -> None:
    """What Airflow calls in the triggerer when a run has missed its deadline."""
    settings = load()
    run = context["dag_run"]
    dag_id, run_id = str(run["dag_id"]), str(run["dag_run_id"])
    found = Message(
        kind="late",
        dag=dag_id,
        run=run_id,
        model=model_of(run.get("conf") or {}) or settings.promote.model,
        what=f"Not done after {settings.airflow.deadline_hours:g} hours; it goes on.",
        link=link(dag_id, run_id),
    )
    logger.warning("%s", found.text)
    for name, notifier in notifiers(settings.airflow.notify, found):
        try:
            await notifier.async_notify(context)
        except Exception:
            logger.exception("Nobody was told by %s", name)


def message(kind: Kind, context: Mapping[str, Any]) -> Message:
    """What to tell of an event, from the context of a task."""
    task = context["ti"]
    dag_id, run_id = str(task.dag_id), str(context["run_id"])
    model = model_of(context.get("params") or {}) or load().promote.model
    return Message(kind, dag_id, run_id, model, _what(kind, context)[:LONGEST], link(dag_id, run_id))


def link(dag_id: str, run_id: str) -> str:
    base = str(conf.get("api", "base_url", fallback="") or "http://localhost:8080").rstrip("/")
    return f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}"


def model_of(params: Mapping[str, Any]) -> str | None:
    """The model that a run's form names; None if it leaves that to params.yaml."""
    named = [text.partition("=")[2] for text in params.get("set") or () if text.startswith("promote.model=")]
    found = named[-1].strip(" \"'") if named else params.get("model")
    return str(found) if found else None


def notifiers(notify: Notify, told: Message) -> Iterator[tuple[str, Any]]:
    """(name of the setting, the provider's notifier), made one by one so that a provider that is missing or refuses
    its arguments keeps no other from telling."""
    if notify.slack_webhook:
        from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

        yield (
            "slack_webhook",
            SlackWebhookNotifier(
                slack_webhook_conn_id=notify.slack_webhook, text=_for_slack(told.text), unfurl_links=False, timeout=30
            ),
        )
    if notify.slack:
        from airflow.providers.slack.notifications.slack import SlackNotifier

        yield (
            "slack",
            SlackNotifier(
                slack_conn_id=notify.slack,
                text=_for_slack(told.text),
                channel=str(notify.slack_channel),
                unfurl_links=False,
            ),
        )
    if notify.smtp:
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        yield (
            "smtp",
            SmtpNotifier(
                smtp_conn_id=notify.smtp,
                to=list(notify.smtp_to),
                subject=" ".join(told.subject.split()),
                html_content=f"<pre>{html.escape(told.text)}</pre>",
            ),
        )
    if notify.http:
        from airflow.providers.http.notifications.http import HttpNotifier

        yield (
            "http",
            HttpNotifier(
                http_conn_id=notify.http,
                json={**asdict(told), "text": told.text},
                headers={"Content-Type": "application/json"},
                extra_options={"timeout": 30},
            ),
        )


def _tell(notify: Notify, compose: Any) -> None:
    if not (notify.slack_webhook or notify.slack or notify.smtp or notify.http):
        return
    try:
        for name, notifier in notifiers(notify, compose()):
            try:
                notifier.notify({})
            except Exception:  # whatever a provider raises
                logger.exception("Nobody was told by %s", name)
    except Exception:
        logger.exception("Nobody was told")


def _what(kind: Kind, context: Mapping[str, Any]) -> str:
    task = context["ti"]
    if kind == "failed":
        index = task.map_index if task.map_index is not None else -1
        label = getattr(task, "rendered_map_index", None) or str(index)
        part = f"#{index + 1}" if label == str(index) else label  # it has its name once it has begun
        name = task.task_id if index < 0 else f"{task.task_id} {part}"
        return f"{name} failed: {context.get('exception') or context.get('reason') or 'see its log'}"
    if kind == "rolled back":
        return f"Rolled back: {context['params']['reason']}"
    gate = task.xcom_pull(task_ids="gate")
    summary = gate.get("summary") if isinstance(gate, dict) else None
    if kind == "waiting":
        return f"A decision waits for approval. {summary or ''}".strip()
    answer = task.xcom_pull(task_ids="approve")
    person = ""
    if isinstance(answer, dict):
        verb = "Approved" if answer.get("approved") else "Rejected"
        person = f" {verb} by {answer.get('by')}: {answer.get('reason')}"
    return f"{summary or 'The gate has decided; the report says how.'}{person}"


def _for_slack(text: str) -> str:
    # https://docs.slack.dev/messaging/formatting-message-text: these three are all that is special.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
