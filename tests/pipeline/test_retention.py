"""Which runs and which objects of the cache are needed, on run directories made by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import files, retention, runs

NOW = 1_800_000_000.0
DAY = 24 * 3600
Make = Callable[..., runs.Run]


@pytest.fixture
def make(refit_home: Path) -> Make:
    """make(run_id, status, …): a run; ids sort by age."""

    def call(run_id: str, status: str, *, parent: str | None = None, model: str = "pets", lock: str = "") -> runs.Run:
        path = refit_home / "runs" / run_id
        record = {"run_id": run_id, "status": status, "created_at": f"2026-01-{run_id}", "model": model}
        files.write_json(path / "run.json", {**record, "parent": parent, "scheduled": True, "owner": None})
        files.write_text(path / "dvc.lock", lock)
        os.utime(path / "run.json", (NOW, NOW))
        os.utime(path / "dvc.lock", (NOW, NOW))
        return runs.Run(path)

    return call


def kept(keep: int, *promoted: str, now: float = NOW) -> set[str]:
    return retention.kept(runs.all_runs(), promoted, keep, now)


def test_the_newest_of_each_model_stay_and_idle_runs_do_not_push_out_others(make: Make) -> None:
    for number in range(1, 5):
        make(f"{number:02}", runs.PROMOTED)
        make(f"{number:02}-x", runs.FAILED, model="other")
    for number in range(5, 9):
        make(f"{number:02}", runs.NOTHING_NEW, parent=f"{number - 1:02}")
    assert kept(2) == {"03", "04", "07", "08", "03-x", "04-x"}


def test_live_versions_keep_their_runs(make: Make) -> None:
    for number in range(1, 5):
        make(f"{number:02}", runs.PROMOTED)
    assert kept(1, "01", "gone-long-ago") == {"01", "04"}


def test_what_the_next_run_starts_from_stays_behind_failed_ones(make: Make) -> None:
    make("01", runs.REFUSED)
    make("02", runs.REFUSED)
    for number in range(3, 6):
        make(f"{number:02}", runs.FAILED, parent="02")
    assert kept(1) == {"02", "05"}


def test_a_run_in_progress_stays_with_its_parent_until_it_is_given_up(make: Make) -> None:
    make("01", runs.PROMOTED)
    make("02", runs.NOTHING_NEW, parent="01")
    make("03", runs.RUNNING, parent="02")
    make("04", runs.PROMOTED, parent="02")
    assert kept(1) == {"01", "02", "03", "04"}
    assert kept(1, now=NOW + 31 * DAY) == {"01", "02", "04"}


def test_a_run_that_waits_for_an_answer_stays(make: Make) -> None:
    make("01", runs.WAITING)
    make("02", runs.REFUSED)
    make("03", runs.REFUSED)
    assert kept(1, now=NOW + 31 * DAY) == {"01", "03"}


def test_a_chain_of_idle_runs_is_shortened(make: Make) -> None:
    make("01", runs.PROMOTED)
    for number in range(2, 7):
        make(f"{number:02}", runs.NOTHING_NEW, parent=f"{number - 1:02}")
    found = runs.all_runs()
    keep = kept(1)
    assert keep == {"01", "06"}
    freed = retention.remove_runs(found, keep)
    assert [run.run_id for run in runs.all_runs()] == ["01", "06"]
    assert runs.decided(runs.find("06")).run_id == "01"
    assert freed > 0
    assert list((runs.find("01").path.parent).glob(".*")) == []


def test_a_run_at_work_is_not_removed(make: Make) -> None:
    """It has gone on since the records were read."""
    make("01", runs.INTERRUPTED)
    make("02", runs.PROMOTED)
    found = runs.all_runs()
    with runs.driving(found[0]):
        retention.remove_runs(found, {"02"})
    assert [run.run_id for run in runs.all_runs()] == ["01", "02"]


def test_remains_of_killed_commands_go_once_they_are_old(make: Make, refit_home: Path) -> None:
    make("01", runs.PROMOTED)
    for place in ("runs", "cache/weights/s3", "cache/features/0a1b"):
        for name, touched in ((".tmp-old", NOW - 2 * DAY), (".tmp-new", NOW)):
            (refit_home / place / name).mkdir(parents=True)
            os.utime(refit_home / place / name, (touched, touched))
    retention.sweep_temporaries(NOW + 1)
    assert {path.name for path in (refit_home / "runs").iterdir()} == {"01", ".tmp-new"}
    assert list((refit_home / "cache").glob("**/.tmp-old")) == []
    assert len(list((refit_home / "cache").glob("**/.tmp-new"))) == 2


def test_objects_that_no_lock_names_are_unneeded(refit_home: Path) -> None:
    objects = refit_home / "cache/files/md5"
    file, inside, stale = (character * 32 for character in "abc")
    folder = "d" * 32 + ".dir"
    for name in (file, inside, stale, "e" * 32 + ".dir"):
        files.write_text(objects / name[:2] / name[2:], "content")
    files.write_text(objects / folder[:2] / folder[2:], json.dumps([{"md5": inside, "relpath": "x"}]))
    lock = f"stages:\n  a:\n    outs:\n    - path: x\n      md5: {file}\n    - path: y\n      md5: {folder}\n"
    assert [path.name[:1] for path in retention.unneeded_objects([lock])] == ["c", "e"]
    assert len(retention.unneeded_objects([])) == 5


def test_the_cache_is_never_cleared_while_a_stage_works_with_it(refit_home: Path) -> None:
    with runs.cache_alone() as alone:
        assert alone
    with runs.using_cache(), runs.using_cache(), runs.cache_alone() as alone:
        assert not alone
    with runs.cache_alone() as alone:
        assert alone
