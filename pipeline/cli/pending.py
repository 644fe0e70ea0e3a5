"""`refit pending`: what the source has that no run has read yet."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from pipeline import runs
from pipeline.cli.errors import EXIT_NOTHING_NEW, clear_errors
from pipeline.cli.text import shown
from pipeline.dataset import manifest
from pipeline.ingestion import history, journal, releases
from pipeline.ingestion.answers import Limits
from pipeline.ingestion.history import History
from pipeline.ingestion.pending import pending as compare
from pipeline.runs import Run
from pipeline.settings import load, params_file
from pipeline.sources.source import open_source

console = Console(highlight=False, soft_wrap=True)
EXAMPLES = 5
MANIFEST, QUARANTINE = "data/manifest", "data/quarantine"


def pending(
    source: Annotated[str | None, typer.Option(help="Directory or s3://bucket/prefix; default: ingest.source.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the classifier; default: promote.model.")] = None,
) -> None:
    """Say what the source has that no run has read yet, whatever became of that run; for schedulers.

    Exit status 0 if there is anything, 99 if nothing. The last line printed is JSON.
    """
    with clear_errors():
        settings = load(params_file())
        place = open_source(
            source or settings.ingest.source, labels=settings.ingest.labels, verify_etag=settings.ingest.verify_etag
        )
        name = model or settings.promote.model
        last, past = _newest(name)
        params = settings.ingest
        limits = Limits(max_bytes=params.max_bytes, max_pixels=params.max_pixels, min_side=params.min_side)
        found = compare(
            place,
            past,
            released=releases.read(releases.path(name)),
            touched=journal.read(journal.path(place.base), limits),
        )
        since = f"since run {last.run_id}" if last else "and no run has read it yet"
        console.print(
            f"{shown(place.base)} has {found.listed} files: {len(found.new)} are new or changed, {len(found.gone)} "
            f"are gone, {since}."
        )
        for uri in [*found.new, *found.gone][:EXAMPLES]:
            console.print(f"  {shown(uri)}")
        print(json.dumps({"new": len(found.new), "gone": len(found.gone), "run": last.run_id if last else None}))
        if found.empty:
            raise typer.Exit(EXIT_NOTHING_NEW)


def _newest(model: str) -> tuple[Run | None, History]:
    """The newest run of the model that has read the source, and what it and those before it have found."""
    for run in reversed(runs.all_runs()):
        if run.record["model"] != model:
            continue
        runs.bring(run, MANIFEST, QUARANTINE)
        if (run.path / QUARANTINE / history.CURRENT).exists():
            return run, history.read(run.path / MANIFEST, run.path / QUARANTINE)
    empty = manifest.QUARANTINE_SCHEMA.empty_table()
    return None, History({}, {}, empty, manifest.SCHEMA.empty_table())
