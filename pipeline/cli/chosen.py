"""Which run a command looks at."""

from __future__ import annotations

from pipeline import runs
from pipeline.errors import DataError, SettingsError
from pipeline.runs import Run
from pipeline.stage import DONE


def newest(model: str | None, run_id: str | None, *, stage: str, wanted: str) -> Run:
    """The run that is named, else the newest of the model (or of all) that has done the stage.

    `wanted`: what is expected of such a run, for the `DataError` if there is none.
    """
    if run_id is not None and model is not None:
        raise SettingsError("Expected --model or --run, got both.", fix="a run has one model: leave out --model")
    for run in runs.newest_first(model) if run_id is None else [runs.opened(run_id)]:
        if (run.path / DONE / stage).exists():
            return run
    asked = f"run {run_id}" if run_id else f"runs of model {model!r}" if model else "runs"
    raise DataError(
        f"Expected {wanted}, found none ({asked}).",
        fix="refit run --source DIR goes as far as it can; `refit runs` lists what there is",
    )
