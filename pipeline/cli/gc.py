"""`refit gc`: old runs, and what of the cache nothing needs, are removed."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.console import Console

from pipeline import retention, runs
from pipeline.cli.errors import EXIT_NOTHING_NEW, clear_errors
from pipeline.cli.text import shown
from pipeline.settings import load, params_file

console = Console(highlight=False, soft_wrap=True)


def gc(
    keep: Annotated[int, typer.Option(min=1, help="Newest runs of each model that stay, besides those needed.")] = 20,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove old runs and what of the cache no run and no version needs. Versions are never removed.

    Needed are runs in progress, those of the live and the previous version, and the one that the next run starts from.
    The cache is left alone while any stage works. With execution.remote nothing is removed (exit status 99). The last
    line printed is JSON.
    """
    with clear_errors():
        if runs.workspaces() is not None:
            console.print("Nothing is removed: with execution.remote, runs and cache are those of all machines.")
            raise typer.Exit(EXIT_NOTHING_NEW)
        found = runs.all_runs()
        models = {run.record["model"] for run in found} | {load(params_file()).promote.model}
        standing = retention.standing(sorted(models), found)
        keeping = retention.kept(found, standing.runs, keep, time.time())
        going = [run for run in found if run.run_id not in keeping]
        for run in going:
            console.print(
                f"{'would remove' if dry_run else 'removing'} run {shown(run.run_id)} ({run.record['status']})"
            )
        if dry_run:
            freed = sum(map(retention.bytes_of, going))
        else:
            retention.sweep_temporaries(time.time())
            freed = retention.remove_runs(found, keeping)
        with runs.cache_alone() as alone:
            if alone:
                # Read now: a stage that has ended meanwhile may have changed what its run needs.
                locks = [lock for run in runs.all_runs() if (lock := retention.lock_of(run)) and run not in going]
                objects = retention.unneeded_objects([*locks, *standing.locks])
                freed += sum(path.lstat().st_size for path in objects)
                for path in objects if not dry_run else ():
                    path.unlink(missing_ok=True)
            else:
                objects = []
                console.print("A stage works with the cache, so that is left alone this time.")
        verb = "would be" if dry_run else "were"
        console.print(
            f"{len(going)} of {len(found)} runs and {len(objects)} objects of the cache {verb} removed: "
            f"{freed / 1e6:.1f} MB."
        )
        print(json.dumps({"runs": len(going), "objects": len(objects), "bytes": freed, "cache": alone}))
