"""`refit pending`, `gc` and `models verify` on real runs, with the real DVC and ingest."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeline import files, runs
from pipeline.cli.main import app
from pipeline.promotion.registry import Registry
from pipeline.settings import code_root, params_file, read_params
from tests import aws
from tests.pipeline.promotion.models import content

Refit = Callable[..., Result]


@pytest.fixture
def refit(monkeypatch: pytest.MonkeyPatch, source: Path, refit_home: Path) -> Refit:
    """The command of an installation whose params.yaml names the source."""
    params = read_params(code_root() / "params.yaml")
    params["ingest"]["source"] = str(source)
    params["execution"]["workers"] = 1
    params["promote"]["model"] = "pets"
    files.write_text(refit_home / "params.yaml", yaml.safe_dump(params))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return lambda *arguments: CliRunner().invoke(app, arguments)


def last_line(done: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def ingest(run_id: str, status: str = runs.REFUSED) -> runs.Run:
    run = runs.create(run_id, read_params(params_file()), scheduled=True)
    runs.reproduce(run, "ingest")
    runs.nothing_new(run)
    run.update(status=status)
    return run


def test_pending_counts_what_no_run_has_read_whatever_became_of_it(
    refit: Refit, source: Path, png: Callable[..., bytes]
) -> None:
    done = refit("pending")
    assert (done.exit_code, last_line(done)) == (0, {"new": 12, "gone": 0, "run": None})
    ingest("1", runs.FAILED)
    done = refit("pending")
    assert (done.exit_code, last_line(done)) == (99, {"new": 0, "gone": 0, "run": "1"})
    (source / "cat/new.png").write_bytes(png(4711))
    (source / "dog/dog-1.png").unlink()
    done = refit("pending")
    assert (done.exit_code, last_line(done)) == (0, {"new": 1, "gone": 1, "run": "1"})
    assert f"{source}/cat/new.png" in done.stdout
    assert refit("pending", "--model", "other").exit_code == 0


@pytest.mark.processes
def test_machines_without_a_common_disk_know_what_the_others_have_read(
    refit: Refit, refit_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with aws.one_at_a_time() as address:
        aws.configure(monkeypatch, address)
        bucket = aws.new_bucket()
        params = yaml.safe_load((refit_home / "params.yaml").read_text())
        params["execution"]["remote"] = f"s3://{bucket}/refit"
        params["registry"]["location"] = f"s3://{bucket}/models"
        for home in (refit_home, tmp_path / "other"):
            files.write_text(home / "params.yaml", yaml.safe_dump(params))
        run = ingest("1", runs.FAILED)
        runs.publish(run)

        monkeypatch.setenv("REFIT_HOME", str(tmp_path / "other"))
        done = refit("pending")
        assert (done.exit_code, last_line(done)) == (99, {"new": 0, "gone": 0, "run": "1"})
        done = refit("gc", "--keep", "1")
        assert done.exit_code == 99
        assert "execution.remote" in done.stdout


@pytest.mark.processes
def test_gc_removes_old_runs_and_their_objects_and_a_later_run_goes_on(
    refit: Refit, refit_home: Path, source: Path, png: Callable[..., bytes]
) -> None:
    for number in range(4):
        (source / f"cat/new-{number}.png").write_bytes(png(4711 + number))
        ingest(str(number))
    before = sorted((refit_home / "cache/files/md5").rglob("*"))
    planned = last_line(refit("gc", "--keep", "1", "--dry-run"))
    assert (planned["runs"], planned["cache"]) == (3, True)
    assert planned["objects"] > 0
    assert len(runs.all_runs()) == 4
    assert sorted((refit_home / "cache/files/md5").rglob("*")) == before

    with runs.using_cache():
        done = last_line(refit("gc", "--keep", "1"))
    assert (done["runs"], done["objects"], done["cache"]) == (3, 0, False)
    done = last_line(refit("gc", "--keep", "1"))
    assert (done["runs"], done["objects"], done["cache"]) == (0, planned["objects"], True)
    assert [run.run_id for run in runs.all_runs()] == ["3"]

    (source / "dog/late.png").write_bytes(png(99))
    last = ingest("5")
    batches = files.read_json(last.path / "metrics/ingest.json")["batches"]
    assert [batch["accepted"] for batch in batches] == [13, 1, 1, 1, 1]


def test_versions_keep_their_runs_and_objects(refit: Refit, refit_home: Path, tmp_path: Path) -> None:
    lock = f"outs:\n- md5: {'a' * 32}\n"
    precious = refit_home / "cache/files/md5/aa" / ("a" * 30)
    files.write_text(precious, "needed to make version 1 again")
    run = ingest("1", runs.PROMOTED)
    published = content(tmp_path / "v1", "v1")
    files.write_json(tmp_path / "card.json", {"run_id": "1"})
    files.write_text(tmp_path / "dvc.lock", lock)
    registry = runs.registry("pets")
    version = registry.publish({**published, "card.json": tmp_path / "card.json", "dvc.lock": tmp_path / "dvc.lock"})
    registry.move_live(version, expected_generation=0, reason="first")
    (run.path / "params.yaml").touch()
    ingest("2")
    ingest("3")
    assert last_line(refit("gc", "--keep", "1"))["runs"] == 1
    assert [found.run_id for found in runs.all_runs()] == ["1", "3"]
    assert precious.exists()
    assert registry.versions() == [version]


def test_nothing_is_removed_or_found_whole_beside_a_registry_that_was_emptied(refit: Refit, tmp_path: Path) -> None:
    ingest("1", runs.PROMOTED)
    ingested = sorted(run.path for run in runs.all_runs())
    for command in (("gc", "--keep", "1"), ("models", "verify")):
        done = refit(*command)
        assert done.exit_code == 75
        assert "is empty, though runs here say that a model has been live there" in done.stderr
    assert sorted(run.path for run in runs.all_runs()) == ingested


def damage(registry: Registry, version: int) -> None:
    model = Path(registry.uri(version)) / "model.keras"
    model.chmod(0o644)
    model.write_bytes(b"rotten")


def test_verify_tells_damage(refit: Refit, tmp_path: Path) -> None:
    assert last_line(refit("models", "verify")) == {"verified": 0}
    registry = runs.registry("pets")
    for number, text in enumerate(("a", "b")):
        registry.move_live(registry.publish(content(tmp_path / text, text)), expected_generation=number, reason="up")
    assert last_line(refit("models", "verify")) == {"verified": 2}
    damage(registry, 1)
    done = refit("models", "verify", "--model", "pets")
    assert done.exit_code == 65
    assert "live version 2 is as published" in done.stdout
    assert "pets, previous" in done.stderr
