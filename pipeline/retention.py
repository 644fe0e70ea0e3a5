"""What may be removed: runs that nobody needs, and what of the cache neither a run nor a version needs.

Versions in the registry are never touched.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import files, runs
from pipeline.errors import ModelError
from pipeline.promotion.registry import LIVE, PREVIOUS
from pipeline.runs import Run
from pipeline.settings import refit_home

_DIGEST = re.compile(r"\bmd5: ([0-9a-f]{32}(?:\.dir)?)\b")  # parsing the YAML takes 50 times as long
# Folders below REFIT_HOME that several processes write to.
_SHARED = ("runs", "cache/weights", "cache/weights/s3", "cache/models/*", "cache/features/*", "cache/embedding")
ABANDONED_AFTER = 30 * 24 * 3600  # seconds without a change, after which a run counts as given up, whatever it says


@dataclass(frozen=True)
class Standing:
    """What the registries of all models need."""

    runs: frozenset[str]  # of the live and the previous version of each model
    locks: tuple[str, ...]  # dvc.lock of every version: with it a version's data and training can be had again


def standing(models: Iterable[str], found: Sequence[Run]) -> Standing:
    """`found`: all runs. Raises `RefitError` if a registry cannot be read, or is not the one that it was: then nothing
    is known to be unneeded."""
    needed, locks = set(), []
    for model in models:
        registry = runs.registry(model)
        aliases = registry.aliases()
        runs.require_known(registry, aliases[LIVE], [run for run in found if run.record["model"] == model])
        for version in registry.versions():
            if (lock := registry.storage.read(version, "dvc.lock")) is not None:
                locks.append(lock.decode(errors="replace"))
            if version in {aliases[LIVE], aliases[PREVIOUS]}:
                # A card that is damaged names no run; its lock keeps the data all the same.
                with contextlib.suppress(ModelError, KeyError):
                    needed.add(runs.safe_id(str(registry.card(version)["run_id"])))
    return Standing(frozenset(needed), tuple(locks))


def kept(found: Sequence[Run], promoted: Collection[str], keep: int, now: float) -> set[str]:
    """Ids of the runs to keep, of all that there are, oldest first.

    Of each model: the newest `keep` runs and, apart from these, as many that found nothing new; the one that the next
    run starts from; runs in progress or waiting for an approval; those of the live and the previous version
    (`promoted`). And what these refer to.
    """
    records = {run.run_id: run.record for run in found}
    by_id = {run.run_id: run for run in found}
    result = {run_id for run_id in records if run_id in promoted}
    for model in {record["model"] for record in records.values()}:
        own = [run_id for run_id, record in records.items() if record["model"] == model]
        idle = [run_id for run_id in own if records[run_id]["status"] == runs.NOTHING_NEW]
        others = [run_id for run_id in own if records[run_id]["status"] != runs.NOTHING_NEW]
        bases = [run_id for run_id in own if records[run_id]["status"] in runs.BASES]
        result |= {*idle[-keep:], *others[-keep:], *bases[-1:]}
    result |= {
        run_id
        for run_id, record in records.items()
        if record["status"] == runs.WAITING
        or (record["status"] == runs.RUNNING and now - _last_change(by_id[run_id]) < ABANDONED_AFTER)
    }
    for run_id in list(result):
        status, parent = records[run_id]["status"], records[run_id]["parent"]
        if status == runs.RUNNING and parent in records:
            result.add(parent)  # it asks its parent whether anything is new
            run_id, status = parent, records[parent]["status"]
        if status == runs.NOTHING_NEW and (decided := _decided(records, run_id)):
            result.add(decided)
    return result


def remove_runs(found: Sequence[Run], keep: Collection[str]) -> int:
    """Remove the directories of all runs but `keep` and those at work; gives the bytes that nothing else holds. Who is
    killed in between leaves nothing that looks like a run."""
    records = {run.run_id: run.record for run in found}
    for run in found:
        record = records[run.run_id]
        if run.run_id in keep and record["status"] == runs.NOTHING_NEW and record["parent"] not in keep:
            run.update(parent=_decided(records, run.run_id))  # else a chain of such runs could never be shortened
    freed = 0
    for run in found:
        if run.run_id not in keep and not runs.driven(run):
            freed += bytes_of(run)
            grave = Path(tempfile.mkdtemp(prefix=files.TEMPORARY_PREFIX, dir=run.path.parent))
            run.path.rename(grave / run.run_id)
            shutil.rmtree(grave)
    return freed


def bytes_of(run: Run) -> int:
    """Of the files that are in this run only, not in the cache."""
    return sum(path.lstat().st_size for path in run.path.rglob("*") if path.is_file() and path.lstat().st_nlink == 1)


def sweep_temporaries(now: float) -> None:
    """Remove what killed commands left beside the runs and what is kept for all of them, once they are surely dead."""
    for pattern in _SHARED:
        for folder in refit_home().glob(pattern):
            files.clear_temporaries(folder, before=now - 24 * 3600)


def unneeded_objects(locks: Iterable[str]) -> list[Path]:
    """Objects of DVC's cache that none of `locks` (texts of dvc.lock files) names, directly or by its directory."""
    root = refit_home() / "cache/files/md5"
    needed = {digest for lock in locks for digest in _DIGEST.findall(lock)}
    for digest in [digest for digest in needed if digest.endswith(".dir")]:
        listing = root / digest[:2] / digest[2:]
        if listing.exists():
            needed |= {entry["md5"] for entry in json.loads(listing.read_text())}
    return sorted(path for path in root.glob("??/*") if f"{path.parent.name}{path.name}" not in needed)


def lock_of(run: Run) -> str | None:
    path = run.path / "dvc.lock"
    return path.read_text() if path.exists() else None


def _last_change(run: Run) -> float:
    names = ("run.json", "dvc.lock", "metrics", "data", ".dvc/tmp/rwlock")
    return max(((run.path / name).stat().st_mtime for name in names if (run.path / name).exists()), default=time.time())


def _decided(records: dict[str, dict[str, str]], run_id: str) -> str | None:
    """The run whose decision stands for this one, as `runs.decided` finds it; None if it is gone."""
    current: str | None = run_id
    while current in records and records[current]["status"] == runs.NOTHING_NEW:
        current = records[current]["parent"]
    return current if current in records else None
