"""Runs with the real DVC and the real ingest stage."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipeline import files, locks, retention, runs
from pipeline.errors import RefitError, SettingsError, TransientError
from pipeline.processes import over
from pipeline.runs import reproduction
from pipeline.runs.repository import repository
from pipeline.runs.reproduction import stop_stale
from pipeline.settings import code_root, read_params, with_overrides

MakeParams = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def interpreter_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.fixture
def params(source: Path) -> MakeParams:
    def make(*overrides: str) -> dict[str, Any]:
        changed = with_overrides(read_params(code_root() / "params.yaml"), ["execution.workers=1", *overrides])
        changed["ingest"]["source"] = str(source)
        return changed

    return make


def decided(run: runs.Run) -> runs.Run:
    """As if the run had gone through all stages."""
    run.update(status=runs.REFUSED)
    return run


def test_a_run_begins_with_its_own_params_graph_and_code(params: MakeParams) -> None:
    run = runs.create("manual__2026-01-02T03:04:05+00:00", params("train.seed=5"))
    assert run.run_id == "manual__2026-01-02T03_04_05_00_00"
    assert run.params["train"]["seed"] == 5
    assert runs.code_digest(run.path) == runs.code_digest(code_root())
    assert files.read_json(run.path / "live.json")["version"] is None
    assert runs.create(run.run_id, params("train.seed=6")).params["train"]["seed"] == 5
    assert runs.find(run.run_id) == run


@pytest.mark.parametrize("run_id", ["..", "../../etc", "/", "."])
def test_a_run_id_never_leaves_its_folder(run_id: str, refit_home: Path) -> None:
    try:
        name = runs.safe_id(run_id)
    except SettingsError:
        return
    assert (refit_home / "runs" / name).resolve().parent == (refit_home / "runs").resolve()


def test_wrong_params_leave_nothing_behind(params: MakeParams, refit_home: Path) -> None:
    wrong = params()
    wrong["train"]["batch_size"] = 0
    with pytest.raises(SettingsError, match="batch_size"):
        runs.create("r", wrong)
    assert not (refit_home / "runs").exists()


def test_a_second_run_starts_from_the_data_of_the_first(
    params: MakeParams, source: Path, png: Callable[..., bytes]
) -> None:
    first = runs.create("1", params())
    assert runs.reproduce(first, "ingest")
    assert not runs.nothing_new(first)
    decided(first)

    second = runs.create("2", params())
    runs.reproduce(second, "ingest")
    assert runs.nothing_new(second)
    assert second.record["parent"] == "1"

    (source / "cat/new.png").write_bytes(png(4711))
    third = runs.create("3", params())
    runs.reproduce(third, "ingest")
    assert not runs.nothing_new(third)
    last = files.read_json(third.path / "metrics/ingest.json")["batches"][-1]
    assert (last["batch"], last["known"], last["accepted"]) == ("0002", 12, 1)


def test_other_params_are_something_new(params: MakeParams) -> None:
    first = runs.create("1", params())
    runs.reproduce(first, "ingest")
    runs.nothing_new(first)
    decided(first)
    for run_id, override, expected in (("2", "train.seed=99", False), ("3", "execution.workers=2", True)):
        run = runs.create(run_id, params(override))
        runs.reproduce(run, "ingest")
        assert runs.nothing_new(run) is expected


def test_another_models_runs_are_no_parents_and_another_source_is_refused(params: MakeParams, tmp_path: Path) -> None:
    decided(runs.create("1", params()))
    assert runs.create("2", params("promote.model=other")).record["parent"] is None
    moved = params()
    moved["ingest"]["source"] = str(tmp_path)
    with pytest.raises(SettingsError, match="--model"):
        runs.create("3", moved)


def test_a_failing_stage_raises_its_own_error_and_keeps_earlier_data(params: MakeParams, source: Path) -> None:
    first = runs.create("1", params())
    runs.reproduce(first, "ingest")
    runs.nothing_new(first)
    decided(first)
    shutil.rmtree(source)
    second = runs.create("2", params())
    with pytest.raises(RefitError, match="found nothing") as caught, runs.driving(second):
        runs.reproduce(second, "ingest")
    assert caught.value.shown
    assert second.record["status"] == runs.FAILED
    assert (second.path / "data/manifest/0001.parquet").exists()
    assert runs.parent_of("classifier") == first


def test_a_run_with_fewer_folds_starts_from_one_with_more(params: MakeParams) -> None:
    first = runs.create("1", params())
    runs.reproduce(first, "ingest")
    lock = yaml.safe_load((first.path / "dvc.lock").read_text())
    lock["stages"]["train@fold-2"] = lock["stages"]["ingest"]
    (first.path / "dvc.lock").write_text(yaml.safe_dump(lock))
    decided(first)
    second = runs.create("2", params("train.parts=[fold-0, fold-1, final]"))
    assert (second.path / "data/manifest/0001.parquet").exists()


def test_a_run_starts_from_one_whose_stages_wrote_less(params: MakeParams) -> None:
    first = runs.create("1", params())
    runs.reproduce(first, "ingest")
    lock = yaml.safe_load((first.path / "dvc.lock").read_text())
    outputs = lock["stages"]["ingest"]["outs"]
    outputs.remove(next(output for output in outputs if output["path"] == "data/attributes.parquet"))
    outputs.append({**outputs[0], "path": "data/no-longer-written"})
    (first.path / "dvc.lock").write_text(yaml.safe_dump(lock))
    decided(first)
    second = runs.create("2", params())
    assert (second.path / "data/manifest/0001.parquet").exists()
    assert runs.reproduce(second, "ingest")
    assert (second.path / "data/attributes.parquet").exists()


def test_a_disk_that_fills_under_dvc_s_own_notes_is_worth_a_retry(
    params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's error is no OSError; a task would have failed for good, with a traceback."""
    import dvc.repo

    def full(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    run = runs.create("1", params())
    monkeypatch.setattr(dvc.repo, "Repo", full)
    with pytest.raises(TransientError, match="No space is left"):
        runs.reproduce(run, "ingest")


def test_an_unfinished_run_directory_is_no_run(params: MakeParams, refit_home: Path) -> None:
    run = decided(runs.create("1", params()))
    shutil.copytree(run.path, refit_home / "runs/.tmp-cut-off")
    assert runs.all_runs() == [run]


def test_new_files_that_are_all_quarantined_are_not_read_again(params: MakeParams, source: Path) -> None:
    first = runs.create("1", params())
    runs.reproduce(first, "ingest")
    runs.nothing_new(first)
    decided(first)
    (source / "cat/bad.png").write_text("no image")
    for run_id in ("2", "3"):
        run = runs.create(run_id, params())
        runs.reproduce(run, "ingest")
        assert runs.nothing_new(run)
        run.update(status=runs.NOTHING_NEW)
        assert runs.decided(run) == first
        assert len(files.read_json(run.path / "metrics/ingest.json")["batches"]) == 2


SLEEPING = """
import pathlib, time
pathlib.Path("data/manifest").mkdir(parents=True, exist_ok=True)
pathlib.Path("data/manifest/.tmp-half").touch()
time.sleep(120)
"""


def _reproduce(run_id: str, home: str) -> None:
    os.environ["REFIT_HOME"] = home
    run = runs.find(run_id)
    try:
        with runs.driving(run):
            runs.reproduce(run, "ingest")
    except TransientError:
        sys.exit(75)


@pytest.fixture
def asleep(params: MakeParams, refit_home: Path) -> Iterator[tuple[runs.Run, Any, psutil.Process]]:
    """A run whose ingest sleeps, the process that drives it, and the stage's own process."""
    run = runs.create("1", params())
    real = (run.path / "components/ingest.py").read_text()
    (run.path / "components/ingest.py").write_text(SLEEPING)
    driver = multiprocessing.get_context("spawn").Process(target=_reproduce, args=("1", str(refit_home)))
    driver.start()
    deadline = time.monotonic() + 60
    while not (run.path / "data/manifest/.tmp-half").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    [stage] = [
        process
        for process in psutil.process_iter(["cwd", "cmdline"])
        if process.info["cwd"] == str(run.path) and process.info["cmdline"][-2:] == ["-m", "components.ingest"]
    ]
    (run.path / "components/ingest.py").write_text(real)
    yield run, driver, stage
    with contextlib.suppress(psutil.NoSuchProcess):
        stage.kill()
    driver.kill()
    driver.join()


def test_a_killed_stage_can_be_repeated(asleep: tuple[runs.Run, Any, psutil.Process]) -> None:
    run, driver, stage = asleep
    stage.kill()
    driver.join(60)
    assert driver.exitcode == 75
    assert run.record["status"] == runs.INTERRUPTED
    assert runs.interrupted(run.params) == run
    assert runs.reproduce(run, "ingest")
    assert [path.name for path in (run.path / "data/manifest").iterdir()] == ["0001.parquet"]


def test_a_stage_that_outlived_its_killed_command_is_ended_first(asleep: tuple[runs.Run, Any, psutil.Process]) -> None:
    run, driver, stage = asleep
    with pytest.raises(TransientError, match="being worked on"), runs.driving(run):
        pass
    driver.kill()
    driver.join()
    assert stage.is_running()
    assert runs.interrupted(run.params) == run
    assert runs.reproduce(run, "ingest")
    assert over(stage)
    assert (run.path / "data/manifest/0001.parquet").exists()


def test_a_number_that_was_given_to_another_process_drives_no_run(params: MakeParams) -> None:
    run = runs.create("1", params())
    run.update(status=runs.RUNNING, owner={"pid": os.getppid(), "host": platform.node()})
    runs.require_idle(run)
    assert runs.interrupted(run.params) == run


@pytest.fixture(params=["held", "cut off"])
def left_by_dvc(request: pytest.FixtureRequest) -> str:
    """What DVC notes of a stage at work; its process was killed and its number is that of another now, or the disk was
    full."""
    entry = {"pid": os.getppid(), "cmd": "refit stage ingest"}
    note = json.dumps({"write": {"data/manifest": entry}, "read": {}})
    return note if request.param == "held" else note[:20]


def test_what_dvc_has_noted_of_a_killed_process_blocks_nothing(params: MakeParams, left_by_dvc: str) -> None:
    run = runs.create("1", params())
    with repository(run.path):  # while another is in the run, it may be that one's note
        (run.path / ".dvc/tmp/rwlock").write_text(left_by_dvc.replace("data/", f"{run.path}/data/"))
        with pytest.raises(TransientError, match="busy"):
            runs.reproduce(run, "ingest")
    assert runs.reproduce(run, "ingest")


def test_where_machines_share_a_home_each_keeps_what_dvc_knows_of_files(
    params: MakeParams, refit_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "own"))
    run = runs.create("1", params())
    assert runs.reproduce(run, "ingest")
    assert any((tmp_path / "own").rglob("cache.db"))
    assert not any(refit_home.rglob("cache.db"))


def test_two_attempts_at_a_stage_do_not_write_at_once(params: MakeParams, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler has taken the first one for dead, which works on, on another machine maybe."""
    monkeypatch.setattr(reproduction, "_ENDING_SECONDS", 0.1)
    run = runs.create("1", params())
    with (
        locks.held(run.path / ".dvc/tmp/ingest.lock"),
        pytest.raises(TransientError, match="Another attempt at ingest"),
    ):
        runs.reproduce(run, "ingest")
    assert runs.reproduce(run, "ingest")


def test_a_process_is_found_under_a_home_that_is_a_link(refit_home: Path, tmp_path: Path) -> None:
    (tmp_path / "real/runs/1").mkdir(parents=True)
    refit_home.symlink_to(tmp_path / "real")
    run = runs.Run(refit_home / "runs/1")
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "components.ingest"], cwd=run.path)
    try:
        while "components.ingest" not in psutil.Process(left.pid).cmdline():  # empty for a moment
            pass
        stop_stale(run, "ingest")
        assert left.wait(10) == -signal.SIGKILL
    finally:
        left.kill()
        left.wait()


def test_runs_that_are_removed_meanwhile_are_not_listed(refit_home: Path) -> None:
    for number in range(80):
        record = {"run_id": f"{number:02}", "model": "pets", "status": runs.REFUSED, "parent": None}
        files.write_json(refit_home / f"runs/{number:02}/run.json", {**record, "created_at": f"{number:02}"})
    remover = threading.Thread(target=retention.remove_runs, args=(runs.all_runs(), {"79"}))
    remover.start()
    found = []
    while remover.is_alive():
        found.append(runs.parent_of("pets"))
    remover.join()
    assert {run and run.run_id for run in found} <= {"79"}
    assert [run.run_id for run in runs.all_runs()] == ["79"]


@pytest.mark.parametrize(
    ("installed", "asked"), [("always", "never"), ("always", "borderline"), ("borderline", "never")]
)
def test_a_scheduler_s_run_cannot_ask_for_less_approval(
    installed: str, asked: str, source: Path, refit_home: Path
) -> None:
    params = with_overrides(read_params(code_root() / "params.yaml"), [f"gate.approval={installed}"])
    refit_home.mkdir(exist_ok=True)
    (refit_home / "params.yaml").write_text(yaml.safe_dump(params))
    params["ingest"]["source"] = str(source)
    less = with_overrides(params, [f"gate.approval={asked}"])
    with pytest.raises(SettingsError, match=f"says {installed}, .* got {asked}"):
        runs.create("less", less, scheduled=True)
    assert runs.create("same", params, scheduled=True).params["gate"]["approval"] == installed
    assert runs.create("own", less).params["gate"]["approval"] == asked, "who may edit params.yaml needs no leave"
