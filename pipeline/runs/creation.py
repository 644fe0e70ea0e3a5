"""A new run's directory: its own params, graph and code, and the lock of the run that it starts from."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline import files
from pipeline.backbones.registry import LIVE
from pipeline.errors import SettingsError
from pipeline.promotion.registry import MODEL, Live
from pipeline.runs.fingerprints import CODE, code_digest
from pipeline.runs.registries import registry, require_known, require_same
from pipeline.runs.repository import repository, require_space
from pipeline.runs.run import (
    INTERRUPTED,
    RUNNING,
    Run,
    configure,
    driven,
    fetch,
    parent_of,
    recorded,
    safe_id,
    stage_names,
    workspaces,
)
from pipeline.settings import Settings, code_root, load, params_file, parse, refit_home
from pipeline.training import recipes

if TYPE_CHECKING:
    from pipeline.runs.remote import Workspaces

STRICTER = ("never", "borderline", "always")  # each value of gate.approval asks a person more often than those before
_GRAPH = ("dvc.yaml", ".dvcignore")


def interrupted(params: Mapping[str, Any]) -> Run | None:
    """The newest unscheduled run of the model, if it was cut off and params and code are the same."""
    model = params["promote"]["model"]
    candidates = [pair for pair in recorded() if pair[1]["model"] == model and not pair[1]["scheduled"]]
    if not candidates:
        return None
    last, record = candidates[-1]
    unfinished = record["status"] in {RUNNING, INTERRUPTED}
    same = last.params == params and code_digest(last.path) == code_digest(code_root())
    return last if unfinished and same and not driven(last) else None


def create(run_id: str, params: Mapping[str, Any], *, scheduled: bool = False) -> Run:
    """A new run directory, complete or not there at all; an existing run of this id is returned as it is.

    `scheduled`: a scheduler drives it, stage by stage, and will itself continue it.

    Raises `SettingsError` for wrong params, a source or a registry that is not this model's, and `OSError`.
    """
    settings = parse(params)
    recipes.check(settings.train)
    run = Run(refit_home() / "runs" / safe_id(run_id))
    shared = workspaces()
    if shared is not None:
        _require_shareable(shared, settings)
        if fetch(run, shared):
            return run
    if (run.path / "run.json").exists():
        return run
    if scheduled:
        _require_approval(settings)
    model = settings.promote.model
    parent = parent_of(model)
    if parent is not None:
        if shared is not None:
            fetch(parent, shared)
        _same_source(parent, params)
    try:
        run.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"REFIT_HOME: {refit_home()} cannot be made a directory ({error.strerror}).",
            fix="set it to one you may write",
        ) from None
    require_space()
    staged = Path(tempfile.mkdtemp(prefix=files.TEMPORARY_PREFIX, dir=run.path.parent))
    try:
        staged.chmod(0o755)
        configure(staged)
        for name in _GRAPH:
            shutil.copyfile(code_root() / name, staged / name)
        for name in CODE:
            shutil.copytree(code_root() / name, staged / name, ignore=shutil.ignore_patterns("__pycache__"))
        (staged / "params.yaml").write_text(yaml.safe_dump(dict(params), sort_keys=False))
        _copy_schema(settings.validate_.schema_, staged / "schema.pbtxt")
        kept = registry(model, params)
        live = _as_found_elsewhere(kept.live(), run, shared)
        if parent is not None and live.version is None:
            require_same(parent, params)
            require_known(kept, live.version, [parent])
        files.write_json(staged / "live.json", live.as_json())
        # Apart from live.json, so that a new live model makes nothing be trained again that does not start from it.
        warm = {"model": f"{live.path}/{MODEL}"} if settings.train.weights == LIVE and live.path else {}
        files.write_json(staged / "warm_start.json", warm)
        if parent is not None:
            shutil.copyfile(parent.path / "dvc.lock", staged / "dvc.lock")
            _check_out(staged, shared)
        record = {
            "run_id": run.run_id,
            "status": RUNNING,
            "created_at": datetime.now(UTC).isoformat(),
            "model": model,
            "scheduled": scheduled,
            "parent": parent.run_id if parent else None,
            "fingerprint": None,
            "owner": None,
        }
        files.write_json(staged / "run.json", record)
        staged.rename(run.path)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return run


def _copy_schema(chosen: str | None, target: Path) -> None:
    """A run is held against the schema as it was when the run began, whatever becomes of the user's file."""
    try:
        shutil.copyfile(chosen or code_root() / "pipeline/validation/schema.pbtxt", target)
    except OSError as error:
        raise SettingsError(
            f"validate.schema: {chosen} cannot be read ({error.strerror}).",
            fix="check the path; `refit schema propose` drafts a schema",
        ) from None


def _require_approval(settings: Settings) -> None:
    """Who may start a run need not be one of those who approve. Raises `SettingsError`."""
    asked, wanted = settings.gate.approval, load(params_file()).gate.approval
    if STRICTER.index(asked) < STRICTER.index(wanted):
        raise SettingsError(
            f"gate.approval: {params_file()} says {wanted}, a run of the scheduler may ask for more and not for less, "
            f"got {asked}.",
            fix="leave it out, or have it changed there",
        )


def _require_shareable(shared: Workspaces, settings: Settings) -> None:
    """Raises `SettingsError` for what other machines would not find."""
    if settings.execution.remote != shared.location:
        raise SettingsError(
            f"execution.remote: expected {shared.location}, as {params_file()} says, got {settings.execution.remote}.",
            fix="set it there: commands that are given a run's name alone must find it too",
        )
    if settings.registry.location is None:
        raise SettingsError(
            "registry.location is null, a folder of this machine alone, but execution.remote lets others run stages.",
            fix="set registry.location to s3://bucket/prefix too",
        )
    shared.check()


def _as_found_elsewhere(live: Live, run: Run, shared: Workspaces | None) -> Live:
    """Its path from the run's directory where that is the same on all machines, whatever their REFIT_HOME."""
    if shared is None or live.path is None or not Path(live.path).is_relative_to(refit_home()):
        return live
    return replace(live, path=os.path.relpath(live.path, run.path))


def _check_out(path: Path, shared: Workspaces | None) -> None:
    """Link the outputs that the lock names from the cache; raises `DataError` if one is gone from it. Those that
    machines share come stage by stage (`_bring`).

    Going on without them would look like success: the whole source would be ingested anew and its test set redrawn.
    """
    lock = yaml.safe_load((path / "dvc.lock").read_text())
    # The parent may have had other stages: more folds, an older graph.
    lock["stages"] = {name: lock["stages"][name] for name in stage_names(Run(path)) if name in lock["stages"]}
    (path / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    if shared is not None:
        return
    # By output, not by stage: the parent's stages may have had fewer, which is no loss. What they had must be there.
    outputs = [output["path"] for stage in lock["stages"].values() for output in stage.get("outs", ())]
    with repository(path) as repo:
        declared = {str(out) for out in repo.index.outs}
        repo.checkout(targets=[output for output in outputs if output in declared], force=True)


def _same_source(parent: Run, params: Mapping[str, Any]) -> None:
    """A second folder under the same model name is nearly always another classifier's: ask instead of mixing them."""
    before, now = parent.params["ingest"]["source"], params["ingest"]["source"]
    if before != now and not params["ingest"]["allow_new_source"]:
        model = params["promote"]["model"]
        raise SettingsError(
            f"The model {model!r} has learned from {before} so far, the source now is {now}.",
            fix="name another model with --model NAME, or mix the two with --set ingest.allow_new_source=true",
        )
