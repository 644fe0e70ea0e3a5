"""Promoting: only what was decided on, once, and again after any crash."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import files
from pipeline.errors import PromotionRefused
from pipeline.promotion.folder_storage import FolderStorage
from pipeline.promotion.opening import open_registry
from pipeline.promotion.promote import FINAL, promote
from pipeline.promotion.registry import MODEL, Registry
from pipeline.promotion.storage import CHECKSUMS
from tests import aws
from tests.pipeline.promotion.finished_run import finished_run


def test_a_version_holds_all_that_was_decided_on_and_why(registry: Registry, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "r1")

    promotion = promote(run, registry)

    assert (promotion["promoted"], promotion["version"], promotion["generation"]) == (True, 1, 1)
    assert promotion == files.read_json(run / "promotion.json")
    folder = registry.fetch(1)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "saved_model.pb",
        "variables/variables.index",
        *(MODEL, "model.tflite", "card.json", "card.md", "decision.json", "dvc.lock", "params.yaml"),
        *("training.parquet", CHECKSUMS),
    }
    assert (folder / "variables/variables.index").read_text() == "weights saved_model/variables/variables.index"
    assert files.read_json(folder / "decision.json") == files.read_json(run / "decision.json")
    assert pq.read_table(folder / "training.parquet")["image_id"].to_pylist() == ["0001-0-0", "0001-0-1", "0001-0-2"]
    [move] = registry.history()
    assert (move["run"], move["reason"], move["kind"]) == ("r1", "Promote: better.", "promote")


def test_repeating_a_promotion_changes_nothing_even_after_a_rollback_from_it(
    registry: Registry, tmp_path: Path
) -> None:
    first, second = finished_run(tmp_path / "r1", "a"), finished_run(tmp_path / "r2", "b", generation=1)
    promote(first, registry)
    done = promote(second, registry, reason="approved by the board")
    registry.move_live(1, expected_generation=2, reason="worse", kind="rollback")

    again = promote(second, registry)

    assert {**again, "at": ""} == {**done, "at": ""}
    assert again["reason"] == "approved by the board"
    assert (registry.pointer().version, registry.versions(), len(registry.history())) == (1, [1, 2], 3)


def test_a_model_that_lost_the_race_is_refused_and_told_by_whom(registry: Registry, tmp_path: Path) -> None:
    promote(finished_run(tmp_path / "winner", "a"), registry)
    with pytest.raises(PromotionRefused, match=r"version 1 was promoted by .* \(run winner\)"):
        promote(finished_run(tmp_path / "loser", "b"), registry)
    assert (registry.alias("live"), registry.alias("candidate")) == (1, 2)


def test_a_negative_decision_touches_nothing(registry: Registry, tmp_path: Path) -> None:
    promotion = promote(finished_run(tmp_path / "r1", promote=False), registry)
    assert (promotion["promoted"], promotion["version"]) == (False, None)
    assert "the floor" in promotion["reason"]
    assert (registry.versions(), registry.history()) == ([], [])


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda run: (run / "decision.json").unlink(), "no decision"),
        (lambda run: (run / FINAL / MODEL).write_text("other"), "about the model .* holds"),
        (lambda run: (run / FINAL / "model.tflite").write_text("other"), "about the exported forms"),
        (lambda run: (run / FINAL / "model.onnx").write_text("new"), "about the exported forms"),
        (lambda run: (run / FINAL / MODEL).unlink(), "found none"),
    ],
    ids=["no decision", "another model", "another form", "one more form", "no model"],
)
def test_what_was_not_decided_on_is_refused(
    registry: Registry, tmp_path: Path, spoil: Callable[[Path], object], problem: str
) -> None:
    run = finished_run(tmp_path / "r1")
    spoil(run)
    with pytest.raises(PromotionRefused, match=problem):
        promote(run, registry)
    assert (registry.versions(), registry.history()) == ([], [])


def test_a_decision_made_before_forms_were_digested_is_carried_out(registry: Registry, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "r1")
    decision = files.read_json(run / "decision.json")
    del decision["forms_digest"]
    files.write_json(run / "decision.json", decision)
    assert promote(run, registry)["promoted"]


def _race(location: str, home: str, run: str, barrier: Any, results: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFIT_HOME", home)
        registry = open_registry(location, "classifier")
        barrier.wait()
        try:
            results.put((run, promote(Path(run), registry)["version"], None))
        except PromotionRefused as refused:
            results.put((run, None, str(refused)))


def test_of_runs_promoted_at_once_one_wins_and_its_twin_agrees(
    registry: Registry, location: str, refit_home: Path, tmp_path: Path
) -> None:
    runs = [str(finished_run(tmp_path / f"r{number}", str(number))) for number in range(3)]
    racers = [*runs, runs[0]]  # one of them is started twice
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(racers)), context.Queue()
    processes = [
        context.Process(target=_race, args=(location, str(refit_home), run, barrier, results)) for run in racers
    ]
    for process in processes:
        process.start()
    said = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()

    [move] = registry.history()
    assert {Path(run).name for run, _, refused in said if refused is None} == {move["run"]}
    assert all(f"(run {move['run']})" in refused for _, _, refused in said if refused is not None)
    assert len([refused for _, _, refused in said if refused is None]) == (2 if move["run"] == "r0" else 1)
    registry.verify(move["version"])


# Killed at every step


def _promote_until_killed(location: str, home: str, run: str, step: int) -> None:
    """End this process by SIGKILL right before its `step`th change of a file there."""
    os.environ["REFIT_HOME"] = home
    registry = open_registry(location, "classifier")
    left = step

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        changes = writes or event in {"os.rename", "os.link", "os.mkdir", "os.chmod", "os.remove"}
        if changes and str(arguments[0]).startswith(location):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    promote(Path(run), registry)


def _quickly() -> Any:
    """Processes that have imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.promotion.promote", "pipeline.promotion.bucket_storage", __name__])
    return context


def _usable(registry: Registry, run: Path) -> None:
    """What a reader sees is whole, and the promotion can be repeated to its end."""
    for version in registry.versions():
        registry.verify(version)
    assert registry.pointer().version in (None, *registry.versions())
    promotion = promote(run, registry)
    assert (promotion["promoted"], promotion["generation"]) == (True, 1)
    registry.verify(promotion["version"])
    assert registry.live().version == promotion["version"]
    assert len(registry.versions()) == 1


@pytest.mark.processes
def test_a_promotion_into_a_folder_may_be_killed_at_any_step(tmp_path: Path, refit_home: Path) -> None:
    run = finished_run(tmp_path / "r1")
    context = _quickly()
    for step in range(1, 200):
        location = tmp_path / f"registry-{step}"
        location.mkdir()
        process = context.Process(target=_promote_until_killed, args=(str(location), str(refit_home), str(run), step))
        process.start()
        process.join(60)
        _usable(Registry(FolderStorage(location / "classifier")), run)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert 30 < step < 199  # it was killed at all of them, and there are as many as one expects


class _Killer:
    """Ends a process when its `step`th write arrives at the store, which does not carry it out."""

    def __init__(self) -> None:
        self.left = 0
        self.process: int | None = None
        self.names: list[str] = []

    def around(self, app: aws.App) -> aws.App:
        def call(environ: dict[str, Any], start: Any) -> Any:
            if environ["REQUEST_METHOD"] != "PUT" or self.process is None:
                return app(environ, start)
            self.names.append(environ["PATH_INFO"])
            self.left -= 1
            if self.left == 0:
                os.kill(self.process, signal.SIGKILL)
                start("500 Killed", [("Content-Length", "0")])
                return [b""]
            return app(environ, start)

        return call


def _promote_when_told(location: str, environment: dict[str, str], run: str, told: Any) -> None:
    os.environ |= environment
    registry = open_registry(location, "classifier")
    told.wait()
    promote(Path(run), registry)


@pytest.mark.processes
def test_a_promotion_into_a_bucket_may_be_killed_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path / "r1")
    killer, context = _Killer(), _quickly()
    with aws.one_at_a_time(killer.around) as address:
        aws.configure(monkeypatch, address)
        for step in range(1, 100):
            location = f"s3://{aws.new_bucket()}/models"
            told = context.Event()
            process = context.Process(target=_promote_when_told, args=(location, dict(os.environ), str(run), told))
            process.start()
            killer.names, killer.left, killer.process = [], step, process.pid
            told.set()
            process.join(60)
            killer.process = None
            _usable(open_registry(location, "classifier"), run)
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
    order = [name.partition("/models/classifier/")[2] for name in killer.names]
    assert order.index("1/saved_model.pb") + 1 == order.index(f"1/{CHECKSUMS}")
    assert order[-1] == "live/00000001.json"
    assert len(order) == step - 1


def test_the_same_run_gives_the_same_files_again(tmp_path: Path) -> None:
    """What is left of a promotion that was cut off can only be gone on with if nothing in it depends on the clock."""
    run = finished_run(tmp_path / "r1")
    found = []
    for name in ("a", "b"):
        registry = Registry(FolderStorage(tmp_path / name / "classifier"))
        promote(run, registry)
        found.append(json.loads(registry.text(1, CHECKSUMS)))
    assert found[0] == found[1]
