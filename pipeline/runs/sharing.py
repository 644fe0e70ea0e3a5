"""With execution.remote: what a machine has here of a run's outputs, and what it lets others have.

Without, all lies on one disk, and nothing has to be brought or handed on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Any

import yaml

from pipeline import files
from pipeline.dataset import store
from pipeline.ingestion import releases
from pipeline.runs.fingerprints import CODE
from pipeline.runs.outputs import CachedOutputs, locked_stages
from pipeline.runs.registries import registry
from pipeline.runs.repository import repository
from pipeline.runs.run import PROMOTE, Run, find, recorded, stage_of, workspaces

_PROMOTED = ("models/final", "data/assignment.parquet", "data/manifest", "data/features")
_TABLES = (
    "data/manifest",
    "data/quarantine",
    "data/features",
    "data/duplicates",
    "data/splits",
    "data/assignment.parquet",
)
_REPORTED = ("data/quarantine", "data/predictions.parquet", "models/final/history.json")


def opened(run_id: str, wanted: Collection[str] = _TABLES) -> Run:
    """`find`, with outputs to be read here too: its tables, or those named."""
    run = find(run_id)
    if workspaces() is not None:
        _bring(run, wanted)
    return run


def newest_first(model: str | None) -> Iterator[Run]:
    """Runs of a model (None: of all) with their tables, one after the other as they are asked for."""
    for run, record in reversed(recorded()):
        if model in (None, record["model"]):
            yield run if workspaces() is None else opened(run.run_id)


def bring_inputs(run: Run, target: str) -> None:
    """With execution.remote: have here what a stage (or promote) reads, what it adds to, and what the report shows."""
    if workspaces() is None:
        return
    name = stage_of(target)
    if name == PROMOTE:
        wanted = list(_PROMOTED)
    else:
        if name == "ingest":
            share_releases(run.record["model"])
        stage: dict[str, Any] = yaml.safe_load((run.path / "dvc.yaml").read_text())["stages"][name]
        wanted = [dep for dep in stage.get("deps", ()) if not dep.startswith(tuple(f"{code}/" for code in CODE))]
        if name != "train":  # whose models DVC brings by itself if nothing has to be trained
            wanted += [out if isinstance(out, str) else next(iter(out)) for out in stage.get("outs", ())]
        if {"live.json", "warm_start.json"} & set(wanted):
            _bring_live(run)
    _bring(run, (*wanted, *_REPORTED))


def share_releases(model: str) -> None:
    """With execution.remote: what people have released from quarantine, on whichever machine."""
    if (shared := workspaces()) is not None:
        shared.share_lines(f"releases/{model}", releases.path(model))


def hand_on(run: Run, target: str) -> None:
    """With execution.remote: let other machines have what a stage has made, and what makes repeating it needless."""
    if (shared := workspaces()) is None:
        return
    with repository(run.path) as repo:
        repo.push(targets=[target], run_cache=True)
    if target == "ingest":
        shared.send_images(
            [*run.path.glob("data/manifest/[0-9]*.parquet"), *run.path.glob("data/quarantine/[0-9]*.parquet")],
            store.path,
        )


def _bring(run: Run, wanted: Collection[str]) -> None:
    """Have the outputs here that the lock names and that lie at, in or around the wanted paths.

    Raises `DataError` if one is gone, `TransientError` if the store does not answer.
    """
    cached = CachedOutputs.of(run.path)
    targets = set()
    for output in (output["path"] for stage in locked_stages(run.path).values() for output in stage.get("outs", ())):
        if output in cached:
            for path in map(PurePosixPath, wanted):
                if PurePosixPath(output).is_relative_to(path):
                    targets.add(output)
                elif path.is_relative_to(output):
                    targets.add(path.as_posix())
    if targets:
        with repository(run.path) as repo:
            repo.fetch(targets=sorted(targets))
            repo.checkout(targets=sorted(targets), force=True)


def _bring_live(run: Run) -> None:
    live = files.read_json(run.path / "live.json")
    if live["path"] is not None and not (run.path / live["path"]).exists():
        registry(run.record["model"], run.params).fetch(live["version"])
