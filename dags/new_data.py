"""The asset that stands for new images at `ingest.source`, and what watches for them.

An event of it is a wake-up and no more: the run that it starts lists the source itself. docs/adr/0025 says why no file
is lost all the same.
"""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import Asset, AssetWatcher
from inbox_trigger import InboxTrigger
from refit_settings import Settings
from sqs_trigger import SqsTrigger

NAME = "new-images"
URI = "refit://new-images"


def new_data(settings: Settings) -> Asset | None:
    """The asset, with the watchers that params.yaml asks for; None if new data starts no runs."""
    airflow = settings.airflow
    if not airflow.by_new_data:
        return None
    source = str(settings.ingest.source)
    if airflow.watch == "directory":
        trigger: InboxTrigger | SqsTrigger = InboxTrigger(
            directory=str(Path(source).expanduser().absolute()),
            poll_seconds=airflow.poll_seconds,
            quiet_seconds=airflow.quiet_seconds,
            at_most_seconds=airflow.at_most_seconds,
        )
    elif airflow.watch == "sqs":
        trigger = SqsTrigger(
            queue=str(airflow.sqs_queue),
            source=source,
            aws_connection=airflow.aws_connection,
            quiet_seconds=airflow.quiet_seconds,
            at_most_seconds=airflow.at_most_seconds,
        )
    else:
        return Asset(name=NAME, uri=URI)
    return Asset(name=NAME, uri=URI, watchers=[AssetWatcher(name=f"{airflow.watch}-watcher", trigger=trigger)])
