"""What of params.yaml concerns the scheduler: the sections `airflow` (when, who is told) and `execution` (where).

The file is $REFIT_HOME/params.yaml where there is one, else the one beside dags/: the same rule as `refit` follows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import yaml
from croniter import croniter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parent.parent

Size = Annotated[str, Field(pattern=r"^[1-9]\d*[kmg]$")]  # bytes, with a unit of 1024
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[kMGTP]|[KMGTP]i)?$")]  # of Kubernetes
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _cron(text: str) -> str:
    if len(text.split()) != 5 or not croniter.is_valid(text):
        raise ValueError(f"expected a cron expression of five fields such as '0 3 * * *', got {text!r}")
    return text


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"expected a time zone such as Europe/Berlin, got {text!r}") from None
    return text


Cron = Annotated[str, AfterValidator(_cron)]
Zone = Annotated[str, AfterValidator(_zone)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
SQS_LONGEST_WAIT = 12 * 3600 - 600
Connection = Annotated[str, Field(min_length=1)]


class Notify(Section):
    """Ids of Airflow connections; None: nobody is told that way."""

    slack_webhook: Connection | None
    slack: Connection | None
    slack_channel: str | None
    smtp: Connection | None
    smtp_to: tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")], ...]
    http: Connection | None

    @model_validator(mode="after")
    def _complete(self) -> Notify:
        if self.slack and not self.slack_channel:
            raise ValueError("slack needs slack_channel, got null")
        if self.smtp and not self.smtp_to:
            raise ValueError("smtp needs at least one address in smtp_to, got none")
        return self


class Airflow(Section):
    schedule: Cron | None
    timezone: Zone
    watch: Literal["none", "directory", "sqs"]
    poll_seconds: Seconds
    sqs_queue: Annotated[str, Field(pattern=r"^https?://[^/]+/.+")] | None
    aws_connection: Connection | None
    quiet_seconds: Annotated[float, Field(ge=0, le=3600)]
    at_most_seconds: Seconds
    sweep: Cron | None
    deadline_hours: Annotated[float, Field(gt=0)] | None
    notify: Notify
    maintenance: Cron | None
    keep_runs: Annotated[int, Field(ge=1)]
    clean_days: Annotated[int, Field(ge=1)] | None
    approval_timeout_hours: Annotated[float, Field(gt=0, le=24 * 365)]
    tensorboard_url: Annotated[str, Field(pattern=r"^https?://[^/]+")] | None

    @model_validator(mode="after")
    def _consistent(self) -> Airflow:
        if self.watch == "sqs" and not self.sqs_queue:
            raise ValueError("watch: sqs needs sqs_queue, got null")
        if self.watch == "sqs" and self.at_most_seconds > SQS_LONGEST_WAIT:
            raise ValueError(
                f"at_most_seconds: expected at most {SQS_LONGEST_WAIT} with watch: sqs, as SQS hides a message for "
                f"twelve hours at most, got {self.at_most_seconds:g}"
            )
        if self.at_most_seconds < self.quiet_seconds:
            raise ValueError(
                f"at_most_seconds must be at least quiet_seconds ({self.quiet_seconds:g}), got {self.at_most_seconds:g}"
            )
        return self

    @property
    def by_new_data(self) -> bool:
        """Whether new data starts runs."""
        return self.watch != "none" or self.sweep is not None


class Images(Section):
    """What is run, by what a stage needs."""

    data: str
    train: str


class Mount(Section):
    source: Annotated[str, Field(min_length=1)]  # a path of the engine's host, or the name of a volume
    target: Annotated[str, Field(pattern=r"^/")]
    read_only: bool = True


class Docker(Section):
    images: Images
    pull: bool
    url: Annotated[str, Field(pattern=r"^(unix|tcp|https?|ssh)://")] | None
    registry_connection: str | None
    home: Annotated[str, Field(min_length=1)] | None
    user: Annotated[str, Field(pattern=r"^[1-9]\d*:\d+$")] | None  # never root
    mounts: tuple[Mount, ...]
    environment: tuple[VariableName, ...]
    aws_connection: str | None
    network: str | None
    gpus: Annotated[int, Field(ge=0)] | Literal["all"] | tuple[str, ...]
    cpus: Annotated[float, Field(gt=0)] | None
    memory: Size | None
    pids: Annotated[int, Field(ge=64)]
    shared_memory: Size
    scratch: Size
    stop_seconds: Annotated[int, Field(ge=1)]


class Resources(Section):
    requests: dict[str, Quantity]
    limits: dict[str, Quantity]


class Pods(Section):
    """What pods of one image ask their cluster for, in its own words."""

    resources: Resources
    node_selector: dict[str, str]
    tolerations: tuple[dict[str, Any], ...]


class Kubernetes(Section):
    images: Images
    pull_policy: Literal["Always", "IfNotPresent", "Never"]
    pull_secrets: tuple[str, ...]
    connection: str | None
    namespace: str | None
    template: str | None
    home: str | None
    params: str | None
    secrets: tuple[str, ...]
    service_account: str | None
    user: Annotated[int, Field(gt=0)]  # never root
    gpus: Annotated[int, Field(ge=0)]
    gpu_resource: str
    data: Pods
    train: Pods
    shared_memory: Quantity
    scratch: Quantity
    start_seconds: Annotated[int, Field(ge=1)]
    stop_seconds: Annotated[int, Field(ge=1)]


class Execution(Section):
    model_config = ConfigDict(extra="ignore", frozen=True)  # the rest is the stages' own

    mode: Literal["process", "docker", "kubernetes"]
    docker: Docker | None = None
    kubernetes: Kubernetes | None = None
    remote: str | None = None

    @model_validator(mode="after")
    def _has_the_section_of_its_mode(self) -> Self:
        if self.mode in ("docker", "kubernetes") and getattr(self, self.mode) is None:
            raise ValueError(
                f"mode is {self.mode}: expected the section execution.{self.mode} of params.yaml, got none"
            )
        if self.mode == "kubernetes" and self.kubernetes is not None:
            if self.kubernetes.home is None and self.remote is None:
                raise ValueError("kubernetes.home is null: expected a PersistentVolumeClaim there, or remote to be set")
            if self.kubernetes.home is not None and self.kubernetes.params is not None:
                raise ValueError(
                    "kubernetes.params: expected null beside kubernetes.home, which holds params.yaml itself"
                )
        return self


class Ingest(Section):
    model_config = ConfigDict(extra="ignore", frozen=True)  # the stage's own

    source: str | None


class Promote(Section):
    model_config = ConfigDict(extra="ignore", frozen=True)  # the step's own

    model: str


class Settings(Section):
    model_config = ConfigDict(extra="ignore", frozen=True)  # the stages' sections

    airflow: Airflow
    execution: Execution
    ingest: Ingest
    promote: Promote

    @model_validator(mode="after")
    def _something_to_watch(self) -> Settings:
        source, airflow = self.ingest.source, self.airflow
        if not source and airflow.by_new_data:
            raise ValueError("airflow.watch and airflow.sweep look at ingest.source, expected a place there, got null")
        if airflow.watch == "sqs" and not str(source).startswith("s3://"):
            raise ValueError(f"airflow.watch: sqs expects ingest.source to be s3://bucket/prefix, got {source!r}")
        if airflow.watch == "directory" and "://" in str(source):
            raise ValueError(f"airflow.watch: directory expects ingest.source to be a directory, got {source!r}")
        return self


def refit_home() -> Path:
    return Path(os.environ.get("REFIT_HOME") or ".refit").absolute()


def params_file() -> Path:
    own = refit_home() / "params.yaml"
    return own if own.exists() else ROOT / "params.yaml"


def read() -> dict[str, Any]:
    """The whole file, unchecked."""
    content: dict[str, Any] = yaml.safe_load(params_file().read_text())
    return content


def load() -> Settings:
    """Raises `ValueError` that names every wrong key; Airflow shows it as the DAG's import error."""
    try:
        return Settings.model_validate(read())
    except ValidationError as error:
        problems = [_explain(dict(item)) for item in error.errors(include_url=False)]
        raise ValueError(f"{params_file()}: " + "; ".join(problems)) from None


def _explain(item: dict[str, Any]) -> str:
    key = ".".join(map(str, item["loc"]))
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "value_error":  # ours; it says what was received
        return f"{key}: {message}" if key else message
    if item["type"] == "missing":
        return f"{key} is missing"
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}"
    return f"{key}: {message[0].lower()}{message[1:]}, got {item['input']!r}"
