"""What of params.yaml concerns the scheduler: the sections `airflow` (when, who is told) and `execution` (where).

The file is $REFIT_HOME/params.yaml where there is one, else the one beside dags/: the same rule as `refit` follows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parent.parent

Size = Annotated[str, Field(pattern=r"^[1-9]\d*[kmg]$")]  # bytes, with a unit of 1024
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[kMGTP]|[KMGTP]i)?$")]  # of Kubernetes
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Airflow(Section):
    pass


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


class Settings(Section):
    model_config = ConfigDict(extra="ignore", frozen=True)  # the stages' sections

    airflow: Airflow
    execution: Execution


def refit_home() -> Path:
    return Path(os.environ.get("REFIT_HOME") or ".refit").absolute()


def params_file() -> Path:
    own = refit_home() / "params.yaml"
    return own if own.exists() else ROOT / "params.yaml"


def load() -> Settings:
    """Raises `ValueError` that names every wrong key; Airflow shows it as the DAG's import error."""
    path = params_file()
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)]
        raise ValueError(f"{path}: " + "; ".join(problems)) from None
