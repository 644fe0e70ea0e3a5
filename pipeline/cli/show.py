"""`refit show`: a file of a run, for whoever cannot read $REFIT_HOME, such as a page of Airflow's."""

from __future__ import annotations

import shutil
import sys
from pathlib import PurePosixPath
from typing import Annotated

import typer

from pipeline import runs
from pipeline.cli.errors import clear_errors
from pipeline.errors import DataError


def show(
    run_id: Annotated[str, typer.Argument(help="A run, as `refit runs` lists them.")],
    name: Annotated[str, typer.Argument(metavar="FILE", help="In the run's directory, such as report.html.")],
) -> None:
    """Print a file of a run as it is.

    With execution.remote also one of a run of another machine.
    """
    with clear_errors():
        parts = PurePosixPath(name).parts
        run = runs.opened(run_id, [name] if parts and ".." not in parts else [])
        path = (run.path / name).resolve()
        if not parts or ".." in parts or not path.is_relative_to(run.path.resolve()) or not path.is_file():
            raise DataError(
                f"The run {run.run_id} has no file {name!r}.",
                fix="name one by its path in the run's directory, such as report.html or metrics/evaluate.json",
            )
        with path.open("rb") as stream:
            shutil.copyfileobj(stream, sys.stdout.buffer)
