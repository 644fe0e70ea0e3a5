"""The live model that a run begins with: local and verified wherever the registry is, or the run does not begin."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipeline import files, runs
from pipeline.errors import ModelError, SettingsError, TransientError
from pipeline.promotion.registry import MODEL
from pipeline.settings import code_root, read_params, with_overrides
from tests.pipeline.promotion.models import go_live


def params(source: Path, location: str | None, *overrides: str) -> dict[str, Any]:
    found = with_overrides(read_params(code_root() / "params.yaml"), list(overrides))
    found["ingest"]["source"], found["registry"]["location"] = str(source), location
    return found


def test_a_run_begins_with_a_local_copy_of_the_live_model(location: str, source: Path, tmp_path: Path) -> None:
    settings = params(source, location, "train.weights=live")
    assert files.read_json(runs.create("r1", settings).path / "live.json") == {
        **dict.fromkeys(("version", "path", "digest")),
        "generation": 0,
    }
    go_live(runs.registry("classifier", settings), tmp_path, "a", "b")

    run = runs.create("r2", settings)

    live = files.read_json(run.path / "live.json")
    assert (live["version"], live["generation"]) == (2, 2)
    assert files.sha256(Path(live["path"]) / MODEL) == live["digest"]
    assert files.read_json(run.path / "warm_start.json") == {"model": f"{live['path']}/{MODEL}"}
    assert runs.registry("classifier").pointer().version == 2, "commands find it by the newest run"
    assert runs.registry("other").pointer().version is None


def test_a_run_does_not_begin_beside_a_registry_that_does_not_answer(
    source: Path, tmp_path: Path, refit_home: Path
) -> None:
    with pytest.raises(TransientError, match=r"registry\.location"):
        runs.create("r1", params(source, str(tmp_path / "not mounted")))
    with pytest.raises(SettingsError, match=r"registry\.location"):
        runs.create("r1", params(source, "ftp://host/models"))
    assert list((refit_home / "runs").iterdir()) == []


def test_a_run_does_not_begin_with_a_damaged_live_model(bucket: str, source: Path, tmp_path: Path) -> None:
    settings = params(source, f"s3://{bucket}")
    go_live(runs.registry("classifier", settings), tmp_path, "a")
    client = boto3.Session().client("s3")
    client.put_object(Bucket=bucket, Key=f"classifier/1/{MODEL}", Body=b"flipped")
    client.close()
    with pytest.raises(ModelError, match=r"Version 1 is damaged: model\.keras\. Fix: restore it .*refit rollback"):
        runs.create("r1", settings)


def test_runs_made_before_there_was_a_location_keep_their_registry(refit_home: Path, tmp_path: Path) -> None:
    go_live(runs.registry("classifier"), tmp_path, "a")
    assert runs.registry("classifier", {"promote": {"model": "classifier"}}).pointer().version == 1
    assert (refit_home / "registry/classifier/1" / MODEL).exists()


def test_where_models_are_kept_is_nothing_new(source: Path, tmp_path: Path) -> None:
    found = []
    for name, location in (("r1", None), ("r2", str(tmp_path))):
        run = runs.create(name, params(source, location))
        (run.path / "data/manifest").mkdir(parents=True)
        found.append(runs.fingerprint(run))
    assert found[0] == found[1]


def _ended(run: runs.Run, status: str) -> None:
    """As if it had gone through its stages, which have left nothing."""
    files.write_text(run.path / "dvc.lock", "schema: '2.0'\nstages: {}\n")
    run.update(status=status)


@pytest.fixture
def nothing_checked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runs.creation._check_out", lambda *_: None)


@pytest.mark.usefixtures("nothing_checked_out")
@pytest.mark.parametrize("status", [runs.PROMOTED, runs.REFUSED, runs.NOTHING_NEW])
def test_a_model_that_was_live_elsewhere_is_not_taken_for_a_first_one(
    location: str, source: Path, tmp_path: Path, refit_home: Path, status: str
) -> None:
    there = params(source, location)
    if status != runs.PROMOTED:
        go_live(runs.registry("classifier", there), tmp_path, "a")
    _ended(runs.create("r1", there), status)
    if status == runs.PROMOTED:
        go_live(runs.registry("classifier", there), tmp_path, "a")

    with pytest.raises(SettingsError, match=r"has been live in .* Fix: --set registry\.location=") as raised:
        runs.create("r2", params(source, None))
    assert f"registry.location={location}, " in raised.value.fix
    assert [run.run_id for run in runs.all_runs()] == ["r1"]

    assert runs.create("r3", there).record["parent"] == "r1"
    runs.create("r4", params(source, None, "promote.model=other"))
    shutil.rmtree(refit_home / "registry", ignore_errors=True)
    go_live(runs.registry("classifier", params(source, None)), tmp_path, "a")
    assert files.read_json(runs.create("r5", params(source, None)).path / "live.json")["version"] == 1, "it was copied"


@pytest.mark.usefixtures("nothing_checked_out")
@pytest.mark.parametrize("status", [runs.PROMOTED, runs.REFUSED])
def test_a_share_that_is_not_mounted_is_no_empty_registry(source: Path, tmp_path: Path, status: str) -> None:
    share, elsewhere = tmp_path / "share", tmp_path / "elsewhere"
    share.mkdir()
    settings = params(source, str(share))
    first = runs.create("r1", settings)
    go_live(runs.registry("classifier", settings), tmp_path, "a")
    _ended(first if status == runs.PROMOTED else runs.create("r2", settings), status)
    share.rename(elsewhere)
    share.mkdir()  # where it is mounted, as it is after the machine has started

    with pytest.raises(TransientError, match=r"is empty, though runs here say .* Fix: mount or restore it"):
        runs.create("r3", settings)

    share.rmdir()
    elsewhere.rename(share)
    assert files.read_json(runs.create("r3", settings).path / "live.json")["version"] == 1


@pytest.mark.usefixtures("nothing_checked_out")
def test_a_model_that_has_never_been_live_may_begin_elsewhere(source: Path, tmp_path: Path) -> None:
    _ended(runs.create("r1", params(source, None)), runs.REFUSED)
    assert runs.create("r2", params(source, str(tmp_path))).record["parent"] == "r1"
