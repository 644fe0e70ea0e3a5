"""What of params.yaml concerns the scheduler: the sections `airflow` (when, who is told) and `execution` (where).

The file is $REFIT_HOME/params.yaml where there is one, else the one beside dags/: the same rule as `refit` follows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

ROOT = Path(__file__).resolve().parent.parent


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Airflow(Section):
    approval_timeout_hours: Annotated[float, Field(gt=0, le=24 * 365)]
    tensorboard_url: Annotated[str, Field(pattern=r"^https?://[^/]+")] | None


class Execution(Section):
    model_config = ConfigDict(extra="ignore", frozen=True)  # the rest is the stages' own

    mode: Literal["process", "docker", "kubernetes"]


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
