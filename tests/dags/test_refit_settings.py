from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import refit_settings
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(refit_home: Path) -> Any:
    """settings(**changes of section airflow), read from $REFIT_HOME/params.yaml."""

    def call(source: str | None = None, **changes: Any) -> refit_settings.Settings:
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["ingest"]["source"] = source
        notify = {**params["airflow"]["notify"], **changes.pop("notify", {})}
        params["airflow"] |= {"notify": notify, **changes}
        refit_home.mkdir(exist_ok=True)
        (refit_home / "params.yaml").write_text(yaml.safe_dump(params))
        return refit_settings.load()

    return call


def test_as_shipped_nothing_starts_and_nobody_is_told(settings: Any) -> None:
    airflow = settings().airflow
    assert not airflow.by_new_data
    assert (airflow.schedule, airflow.maintenance, airflow.deadline_hours) == (None, None, None)
    assert set(airflow.notify.model_dump().values()) == {None, ()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": "every day"}, "airflow.schedule: expected a cron expression"),
        ({"schedule": "0 3 * * * *"}, "airflow.schedule: expected a cron expression of five fields"),
        ({"timezone": "Middle/Earth"}, "airflow.timezone: expected a time zone"),
        ({"watch": "inbox"}, "airflow.watch: input should be 'none', 'directory' or 'sqs', got 'inbox'"),
        ({"watch": "directory"}, "airflow.watch and airflow.sweep look at ingest.source"),
        ({"sweep": "*/30 * * * *"}, "airflow.watch and airflow.sweep look at ingest.source"),
        ({"watch": "directory", "source": "s3://b/p"}, "got 's3://b/p'"),
        ({"watch": "sqs", "source": "s3://b/p"}, "airflow: watch: sqs needs sqs_queue, got null"),
        ({"watch": "sqs", "source": "/photos", "sqs_queue": "https://sqs/1/q"}, "got '/photos'"),
        (
            {"watch": "sqs", "sqs_queue": "https://sqs.test/1/q", "at_most_seconds": 50000},
            r"airflow: at_most_seconds: expected at most 42600 with watch: sqs",
        ),
        ({"at_most_seconds": 30}, r"airflow: at_most_seconds must be at least quiet_seconds \(60\), got 30"),
        ({"notify": {"slack": "s"}}, "airflow.notify: slack needs slack_channel"),
        ({"notify": {"smtp": "s"}}, "airflow.notify: smtp needs at least one address"),
        ({"notify": {"smtp_to": ["nobody"]}}, "airflow.notify.smtp_to.0: .*got 'nobody'"),
        ({"notify": {"pager": "x"}}, "unknown key airflow.notify.pager"),
        ({"keep_runs": 0}, "airflow.keep_runs: .*greater than or equal to 1, got 0"),
        ({"shedule": None}, "unknown key airflow.shedule"),
    ],
    ids=str,
)
def test_a_wrong_value_names_key_expected_and_received(settings: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(**changes)


def test_a_missing_key_is_named(settings: Any, refit_home: Path) -> None:
    settings()
    params = yaml.safe_load((refit_home / "params.yaml").read_text())
    del params["airflow"]["sweep"]
    (refit_home / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ValueError, match=r"airflow\.sweep is missing"):
        refit_settings.load()
