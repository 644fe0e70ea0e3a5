"""Bring a run's stages up to date, one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipeline import files, locks
from pipeline.errors import RefitError, SettingsError, TransientError
from pipeline.processes import outlast
from pipeline.runs.repository import repository, require_space
from pipeline.runs.run import Run, stage_names, stage_of, workspaces
from pipeline.runs.sharing import bring_inputs, hand_on
from pipeline.stage import DONE, FAILURE

_ENDING_SECONDS = 30  # an attempt that was told to stop, or whose scheduler has died, ends within 20


def reproduce(run: Run, target: str, *, force: bool = False) -> bool:
    """Bring one stage up to date with `dvc repro --single-item`; False if it was already.

    Raises the `RefitError` that the stage ended with. A stage that was killed leaves the run as it was before.
    """
    require_space()
    with _alone(run, target):
        return _reproduce(run, target, force)


@contextlib.contextmanager
def _alone(run: Run, target: str) -> Iterator[None]:
    """No two attempts at a stage write at once, on whatever machines of one REFIT_HOME: a scheduler may take the first
    one for dead."""
    with locks.held(run.path / ".dvc/tmp" / f"{target}.lock", seconds=_ENDING_SECONDS) as alone:
        if not alone:
            raise TransientError(
                f"Another attempt at {target} of the run {run.run_id} is at work.", fix="wait for it, then run again"
            )
        yield


def _reproduce(run: Run, target: str, force: bool) -> bool:
    stop_stale(run, target)
    bring_inputs(run, target)
    (run.path / FAILURE).unlink(missing_ok=True)
    _done(run, target).unlink(missing_ok=True)
    try:
        with repository(run.path) as repo:
            # Entries of the run cache come one by one, so only for what is dearest to repeat.
            pull = stage_of(target) == "train" and workspaces() is not None
            changed = bool(repo.reproduce(targets=[target], single_item=True, force=force, pull=pull))
    except TransientError:
        raise
    except RefitError as error:
        raise _stage_error(run) or error from None
    hand_on(run, target)
    if changed:
        names = [stage_of(other) for other in stage_names(run)]
        for other in stage_names(run)[len(names) - names[::-1].index(stage_of(target)) :]:
            _done(run, other).unlink(missing_ok=True)  # what it was made from is no more
    files.write_text(_done(run, target), "")
    return changed


def stop_stale(run: Run, target: str) -> None:
    """End processes of this stage that outlived the command that started them, so that two never write at once."""
    name, _, part = target.partition("@")
    folder = str(run.path.resolve())  # as the system names it
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = process.info["cmdline"] or []
        mine = f"components.{name}" in command and (not part or part in command)
        if mine and process.info["cwd"] == folder:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied:
                pass
            if outlast([process], 10):
                raise TransientError(
                    f"Process {process.pid} of an earlier attempt at {target} cannot be ended.",
                    fix="end it, then run again",
                )


def _done(run: Run, target: str) -> Path:
    return run.path / DONE / target


def _stage_error(run: Run) -> RefitError | None:
    path = run.path / FAILURE
    if not path.exists():
        return None
    failure = files.read_json(path)
    known = {kind.exit_status: kind for kind in (RefitError, SettingsError, TransientError)}
    error = known.get(failure["exit_status"], RefitError)(failure["problem"], fix=failure["fix"])
    error.shown = True
    return error
