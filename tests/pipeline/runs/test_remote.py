"""Run directories through S3: two machines without a common disk take turns, race, and are cut off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline import files, runs
from pipeline.errors import DataError, SettingsError
from pipeline.runs import remote
from pipeline.runs.remote import State, merged
from pipeline.settings import code_root, params_file, read_params
from tests import aws
from tests.dags.test_embedded import SETTINGS as SMALLEST

REFIT = Path(sys.executable).with_name("refit")

entries = st.dictionaries(st.sampled_from("abcd"), st.one_of(st.none(), st.integers(0, 2)), max_size=4)


@given(entries, entries, entries)
def test_merging_loses_no_side_s_changes(base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    found = merged(base, mine, theirs, mine_first=True)
    absent = object()
    for name in "abcd":
        was, here, there, now = (side.get(name, absent) for side in (base, mine, theirs, found))
        assert now in (here, there)
        if here != was:
            assert now == here
        elif there != was:
            assert now == there
    assert merged(base, theirs, mine, mine_first=False) == found, "the sides may be exchanged with their order"
    assert merged(base, base, theirs, mine_first=True) == theirs


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ".dvc/config", "a/__pycache__/x", ""])
def test_a_state_never_leaves_its_run(name: str) -> None:
    body = State({name: "0" * 64}, {}, {}, "").as_json()
    with pytest.raises(DataError, match="which no run holds"):
        State.from_json(body, "s3://b/states/r/1")
    with pytest.raises(DataError, match="no sha256"):
        State.from_json(State({"ok": "../../x"}, {}, {}, "").as_json(), "s3://b/states/r/1")
    with pytest.raises(DataError, match="is no state"):
        State.from_json(b"[]", "s3://b/states/r/1")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of this test alone: the store behind it is one for the whole process."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    with aws.one_at_a_time() as address:
        aws.configure(monkeypatch, address)
        yield aws.new_bucket()


@pytest.fixture
def machine(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """machine(name): from now on we are on that machine; gives its REFIT_HOME."""
    params = yaml.safe_load((code_root() / "params.yaml").read_text())
    params["execution"].update(remote=f"s3://{bucket}/refit", workers=1)
    params["registry"]["location"] = f"s3://{bucket}/models"

    def be(name: str) -> Path:
        home = tmp_path / name
        monkeypatch.setenv("REFIT_HOME", str(home))
        home.mkdir(exist_ok=True)
        (home / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        return home

    return be


def start(run_id: str, source: Path) -> runs.Run:
    params = read_params(params_file())
    params["ingest"]["source"] = str(source)
    run = runs.create(run_id, params, scheduled=True)
    runs.publish(run)
    return run


def newest_state(run_id: str) -> State:
    shared = runs.workspaces()
    assert shared is not None
    return shared._read(run_id, shared._generations()[run_id])


@pytest.mark.processes
def test_machines_take_turns(machine: Callable[[str], Path], source: Path) -> None:
    a = machine("a")
    begun = start("1", source)
    b = machine("b")
    run = runs.find("1")
    assert run.path == b / "runs/1"
    assert run.record == begun.record
    assert runs.code_digest(run.path) == runs.code_digest(code_root())
    assert str(b) in (run.path / ".dvc/config").read_text()
    assert runs.reproduce(run, "ingest")
    runs.nothing_new(run)
    run.update(status=runs.REFUSED)
    runs.publish(run)

    machine("a")
    run = runs.find("1")
    assert run.path == a / "runs/1"
    assert (run.path / "done/ingest").exists()
    assert not (run.path / "data/manifest").exists(), "outputs come when a stage needs them"
    runs.reproduce(run, "ingest")
    assert [path.name for path in (run.path / "data/manifest").iterdir()] == ["0001.parquet"]
    runs.publish(run)

    # A third machine, with nothing, continues the data of the first run in a second one.
    machine("c")
    assert [found.run_id for found in runs.all_runs()] == ["1"]
    second = start("2", source)
    assert second.record["parent"] == "1"
    runs.reproduce(second, "ingest")
    [batch] = files.read_json(second.path / "metrics/ingest.json")["batches"]
    assert batch["batch"] == "0001"
    assert runs.nothing_new(second)
    second.update(status=runs.NOTHING_NEW)
    runs.publish(second)

    machine("a")
    assert {found.run_id: found.record["status"] for found in runs.all_runs()} == {
        "1": runs.REFUSED,
        "2": runs.NOTHING_NEW,
    }


@pytest.mark.processes
def test_what_was_cut_off_is_not_seen_elsewhere(machine: Callable[[str], Path], source: Path) -> None:
    machine("a")
    start("1", source)
    before = newest_state("1")
    run = runs.find("1")
    runs.reproduce(run, "ingest")
    (run.path / "metrics/ingest.json").write_text("{}")
    # ... and now this machine is gone, before it has published.
    machine("b")
    assert newest_state("1") == before
    run = runs.find("1")
    assert not (run.path / "metrics/ingest.json").exists()
    assert runs.reproduce(run, "ingest")
    assert files.read_json(run.path / "metrics/ingest.json")["batches"][-1]["accepted"] == 12


@pytest.mark.processes
def test_racing_folds_lose_nothing(machine: Callable[[str], Path], source: Path, bucket: str) -> None:
    """Eight machines, each with a stage's entry in the lock, a file and a key of the record of its own."""
    home = machine("a")
    start("1", source)
    shared = runs.workspaces()
    assert shared is not None
    machines = []
    for number in range(8):
        folder = home.parent / f"m{number}" / "runs"
        one = remote.workspaces(f"s3://{bucket}/refit", folder)
        assert one.fetch("1")
        lock = {"schema": "2.0", "stages": {f"train@fold-{number}": {"cmd": str(number)}}}
        (folder / "1/dvc.lock").write_text(yaml.safe_dump(lock))
        files.write_text(folder / f"1/done/train@fold-{number}", "")
        runs.Run(folder / "1").update(**{f"key{number}": number})
        files.write_text(folder / "1/report.html", str(number))
        machines.append(one)
    threads = [threading.Thread(target=one.publish, args=("1",)) for one in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = newest_state("1")
    assert state.lock == {f"train@fold-{number}": {"cmd": str(number)} for number in range(8)}
    assert {f"done/train@fold-{number}" for number in range(8)} <= set(state.files)
    assert {f"key{number}": number for number in range(8)}.items() <= state.record.items()
    machine("late")
    found = runs.find("1")
    assert (found.path / "report.html").read_text() in set("01234567")
    assert len(yaml.safe_load((found.path / "dvc.lock").read_text())["stages"]) == 8


def test_two_parts_in_one_directory_keep_each_other_s_results(machine: Callable[[str], Path], source: Path) -> None:
    """Fold 1 begins, and looks what is new, when fold 0 has written the lock and has not published it."""
    machine("a")
    run = start("1", source)
    files.write_text(run.path / "dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": {"train@fold-0": {"cmd": "0"}}}))
    run = runs.find("1")
    assert set(yaml.safe_load((run.path / "dvc.lock").read_text())["stages"]) == {"train@fold-0"}
    runs.publish(run)
    assert set(newest_state("1").lock) == {"train@fold-0"}


def test_a_part_that_ends_while_another_hands_its_results_on_is_not_lost(
    machine: Callable[[str], Path], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two parts in one directory; a third machine has published, so that what this one hands on is merged."""

    def lock(run: runs.Run, *parts: str) -> None:
        stages = {f"train@{part}": {"cmd": part} for part in parts}
        files.write_text(run.path / "dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": stages}))

    machine("b")
    theirs = start("1", source)
    machine("a")
    run = runs.find("1")
    machine("b")
    lock(theirs, "fold-2")
    runs.publish(theirs)
    machine("a")
    lock(run, "fold-0")
    read = remote.Workspaces._read

    def fold_1_ends(*arguments: Any) -> State:
        lock(run, "fold-0", "fold-1")
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(remote.Workspaces, "_read", fold_1_ends)
        runs.publish(run)
    runs.publish(run)
    assert set(newest_state("1").lock) == {"train@fold-0", "train@fold-1", "train@fold-2"}


@pytest.mark.processes
def test_a_state_is_read_while_other_parts_replace_their_outputs(machine: Callable[[str], Path], source: Path) -> None:
    machine("a")
    run = start("1", source)
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            for name in ("models/final", "reports/validation"):
                with files.replacing_directory(run.path / name) as folder:
                    (folder / "inner").mkdir()
                    (folder / "inner/file").write_text("x")

    other = threading.Thread(target=churn)
    other.start()
    try:
        found = [remote.state_of(run.path).files for _ in range(60)]
    finally:
        over.set()
        other.join()
    assert not {name for names in found for name in names if name.startswith("models/") or ".tmp-" in name}
    assert all("dvc.yaml" in names for names in found)


def test_a_run_that_was_only_listed_is_found_as_it_is_by_now(machine: Callable[[str], Path], source: Path) -> None:
    machine("b")
    theirs = start("1", source)
    machine("a")
    assert [run.record["status"] for run in runs.all_runs()] == [runs.RUNNING]
    machine("b")
    theirs.update(status=runs.REFUSED)
    runs.publish(theirs)
    machine("a")
    assert runs.find("1").record["status"] == runs.REFUSED
    runs.publish(runs.find("1"))
    assert newest_state("1").record["status"] == runs.REFUSED


def test_what_is_known_of_other_machines_runs_is_not_asked_for_again(
    machine: Callable[[str], Path], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("b")
    theirs = start("1", source)
    machine("a")
    assert (runs.find("1").path / "dvc.yaml").exists()
    machine("b")
    theirs.update(status=runs.REFUSED)
    runs.publish(theirs)
    machine("a")
    asked = []
    read = remote.Workspaces._read
    monkeypatch.setattr(remote.Workspaces, "_read", lambda *given: asked.append(given[1:]) or read(*given))
    for _ in range(3):
        assert [run.record["status"] for run in runs.all_runs()] == [runs.REFUSED]
    assert asked == [("1", 2)]


def test_what_people_release_from_quarantine_holds_on_every_machine(
    machine: Callable[[str], Path], tmp_path: Path, bucket: str
) -> None:
    first, second = (remote.workspaces(f"s3://{bucket}/refit", tmp_path / name / "runs") for name in "ab")
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    a.write_text('{"at": "2026-01-01", "uri": "x"}\n{"at": "2026-01-03", "uri": "x"}\n')
    b.write_text('{"at": "2026-01-02", "uri": "x"}\n')
    for _ in range(2):
        first.share_lines("releases/m", a)
        second.share_lines("releases/m", b)
    assert [json.loads(line)["at"] for line in b.read_text().splitlines()] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert a.read_text() == b.read_text()


def test_files_that_went_away_go_away_elsewhere(machine: Callable[[str], Path], source: Path) -> None:
    machine("a")
    run = start("1", source)
    files.write_text(run.path / "failure.json", "{}")
    runs.publish(run)
    machine("b")
    run = runs.find("1")
    (run.path / "failure.json").unlink()
    runs.publish(run)
    machine("a")
    assert not (runs.find("1").path / "failure.json").exists()


@pytest.mark.processes
def test_a_store_without_what_a_run_names_is_no_fresh_start(
    machine: Callable[[str], Path], source: Path, bucket: str
) -> None:
    machine("a")
    run = start("1", source)
    runs.reproduce(run, "ingest")
    run.update(status=runs.REFUSED)
    runs.publish(run)
    s3 = boto3.client("s3")
    kept = s3.list_objects_v2(Bucket=bucket, Prefix="refit/cache/files/")["Contents"]
    for entry in kept:
        s3.delete_object(Bucket=bucket, Key=entry["Key"])
    machine("b")
    second = start("2", source)
    with pytest.raises(DataError):
        runs.reproduce(second, "ingest")


def test_settings_that_others_would_not_find_are_refused(machine: Callable[[str], Path], source: Path) -> None:
    machine("a")
    params = read_params(params_file())
    params["ingest"]["source"] = str(source)
    with pytest.raises(SettingsError, match=r"registry\.location is null"):
        runs.create("1", {**params, "registry": {"location": None, "mlflow_uri": None}})
    with pytest.raises(SettingsError, match=r"execution\.remote: expected s3://.*/refit"):
        runs.create("1", {**params, "execution": {**params["execution"], "remote": None}})


def refit(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "REFIT_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(
        [REFIT, *arguments], capture_output=True, text=True, cwd=home, env=environment, timeout=240, check=False
    )


@pytest.mark.processes
def test_a_failure_is_seen_on_other_machines(machine: Callable[[str], Path], source: Path, tmp_path: Path) -> None:
    a = machine("a")
    done = refit(a, "start", "--run-id=1", f"--source={tmp_path / 'nowhere'}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["run_id"] == "1"
    assert refit(machine("b"), "stage", "ingest", "--run-id=1").returncode == 65
    c = machine("c")
    assert "failed" in refit(c, "runs").stdout
    run = runs.find("1")
    assert "nowhere" in files.read_json(run.path / "failure.json")["problem"]
    assert "nowhere" in (run.path / "report.html").read_text()


@pytest.mark.processes
def test_a_killed_stage_leaves_the_run_as_it_was(machine: Callable[[str], Path], source: Path) -> None:
    a = machine("a")
    assert refit(a, "start", "--run-id=1", f"--source={source}").returncode == 0
    run = runs.find("1")
    # The code of this run waits in its first stage, and is the run's own: its digest says so.
    real = (run.path / "components/ingest.py").read_text()
    (run.path / "components/ingest.py").write_text("import pathlib, time; pathlib.Path('up').touch(); time.sleep(300)")
    before = newest_state("1")
    with subprocess.Popen(
        [REFIT, "stage", "ingest", "--run-id=1"], stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (run.path / "up").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    assert newest_state("1") == before
    machine("b")
    again = runs.find("1")
    assert (again.path / "components/ingest.py").read_text() == real
    assert not (again.path / "up").exists()


@pytest.mark.processes
def test_a_file_of_a_run_is_shown_on_any_machine_and_no_other_file(
    machine: Callable[[str], Path], source: Path
) -> None:
    machine("a")
    run = start("1", source)
    files.write_text(run.path / "report.html", "<p>é</p>")
    runs.publish(run)
    b = machine("b")
    assert refit(b, "show", "1", "report.html").stdout == "<p>é</p>"
    (b / "secret").write_text("s3cret")
    (b / "runs/1/link").symlink_to(b / "secret")
    for name in ("../../secret", str(b / "secret"), "link", "nothing", "", ".", "metrics"):
        done = refit(b, "show", "1", name)
        assert (done.returncode, done.stdout) == (65, ""), name
        assert "has no file" in done.stderr


SETTINGS = [
    *(text for text in SMALLEST if not text.startswith("promote.")),
    "serve.calls=5",
    "serve.container=never",
    "gate.max_calibration_error=1.0",
]


@pytest.mark.services  # for its four minutes
@pytest.mark.timeout(1200)
def test_every_stage_on_a_machine_of_its_own(machine: Callable[[str], Path], tmp_path: Path) -> None:
    """As in pods: each begins with nothing, and nothing is left of it but what it handed on."""
    for number, label in enumerate(("red", "green", "blue")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for image in range(24):
            noise = np.random.default_rng([number, image]).normal(0, 40, (32, 32, 3))
            noise[..., number] += 120
            pixels = np.clip(noise + 60, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{image}.png")
    pods = iter(range(100))

    def pod(*arguments: str, expected: int = 0) -> str:
        home = machine(f"pod-{next(pods)}")
        done = refit(home, *arguments)
        assert done.returncode == expected, f"{arguments}\n{done.stdout}\n{done.stderr}"
        shutil.rmtree(home)
        return done.stdout

    settings = [f"--set={text}" for text in SETTINGS]
    begun = pod("start", "--run-id=1", f"--source={tmp_path / 'photos'}", *settings)
    parts = json.loads(begun.splitlines()[-1])["parts"]
    for stage in ("ingest", "profile", "validate", "shard"):
        pod("stage", stage, "--run-id=1")
    for part in parts:
        pod("stage", "train", f"--part={part}", "--run-id=1")
    for stage in ("evaluate", "diagnose", "serve", "gate", "promote"):
        pod("stage", stage, "--run-id=1")
    [listed] = json.loads(pod("models", "list", "--json"))["versions"]
    assert (listed["run_id"], listed["aliases"]) == ("1", ["live"])
    assert "promoted" in pod("runs")
    report = pod("show", "1", "report.html")
    assert "Quarantine" in report or "quarantine" in report

    # The same again: nothing is new, which a machine that never saw the first run finds out.
    pod("start", "--run-id=2", f"--source={tmp_path / 'photos'}", *settings)
    pod("stage", "ingest", "--run-id=2", "--skip-if-nothing-new", expected=99)
    assert "nothing_new" in pod("runs")
