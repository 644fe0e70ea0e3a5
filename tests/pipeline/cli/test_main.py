"""The command as a user calls it: what it prints and with which status it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.promotion.folder_storage import FolderStorage
from pipeline.promotion.registry import Registry

REFIT = Path(sys.executable).with_name("refit")
Refit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def refit(refit_home: Path, tmp_path: Path) -> Refit:
    def call(*arguments: str, home: Path = refit_home) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "REFIT_HOME": str(home), "COLUMNS": "200"}
        return subprocess.run(
            [REFIT, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=240, check=False
        )

    return call


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one error line. Nothing but log lines may stand beside it, no traceback above all."""
    assert "Traceback" not in done.stderr, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Fix: " in line
    return line


@pytest.mark.parametrize(
    ("overrides", "status", "words"),
    [
        (["train.batch_sise=1"], 78, "train.batch_sise, did you mean train.batch_size"),
        (["train.backbone=resnet_50"], 78, "did you mean resnet50"),
        (["train.input_size=16"], 78, "at least 32"),
        (["train.phases.finetune.unfreeze.top=900"], 78, "train.phases.finetune.unfreeze"),
        (["promote.model=UP/../and/away"], 78, "promote.model"),
    ],
    ids=["unknown key", "unknown backbone", "too small for the backbone", "too many blocks", "name of the model"],
)
def test_wrong_settings_end_before_anything_is_made(
    refit: Refit, refit_home: Path, source: Path, overrides: list[str], status: int, words: str
) -> None:
    done = refit("run", "--source", str(source), *(part for text in overrides for part in ("--set", text)))
    assert done.returncode == status
    assert words in error_line(done)
    assert not refit_home.exists()


def test_a_source_that_is_missing_empty_or_without_classes(refit: Refit, source: Path, tmp_path: Path) -> None:
    assert "found nothing" in error_line(refit("run", "--source", str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    done = refit("run", "--source", str(tmp_path / "empty"))
    assert (done.returncode, "empty source" in error_line(done)) == (65, True)
    assert "no-label" in error_line(refit("run", "--source", str(source / "cat")))
    assert "ingest.source" in error_line(refit("run"))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda source: shutil.rmtree(source / "dog"), "found only the class"),
        (lambda source: [path.unlink() for path in sorted((source / "dog").iterdir())[:4]], "fewer than"),
    ],
    ids=["one class only", "fewer images than folds"],
)
def test_data_that_cannot_be_trained_on_is_blocked_with_its_evidence(
    refit: Refit, refit_home: Path, source: Path, change: Callable[[Path], object], words: str
) -> None:
    change(source)
    done = refit("run", "--source", str(source), "--set", "profile.embedded_images=0")
    assert done.returncode == 65
    assert words in error_line(done)
    [run] = (refit_home / "runs").iterdir()
    assert json.loads((run / "reports/validation/verdict.json").read_text())["verdict"] == "block"
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    assert words in (run / "report.html").read_text()
    assert not (run / "models").exists()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_said_before_work_begins(refit: Refit, source: Path, full_disk: Path) -> None:
    done = refit("run", "--source", str(source), home=full_disk / "home")
    assert done.returncode == 75
    assert "found 0 MB" in error_line(done)


def test_a_home_that_cannot_be_written(refit: Refit, source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = refit("run", "--source", str(source), home=tmp_path / "file")
    assert (done.returncode, "REFIT_HOME" in error_line(done)) == (78, True)


@pytest.mark.processes
def test_a_scheduler_starts_a_run_and_its_stages(refit: Refit, source: Path) -> None:
    for _ in range(2):  # a retried task finds the run as it is
        done = refit("start", "--run-id", "manual__2026-01-02T03:04:05+00:00", "--source", str(source))
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer == {
            "run_id": "manual__2026-01-02T03_04_05_00_00",
            "parts": ["fold-0", "fold-1", "fold-2", "final"],
        }
    run = ("--run-id", "manual__2026-01-02T03:04:05+00:00")
    assert refit("stage", "ingest", *run, "--skip-if-nothing-new").returncode == 0
    assert "12 known, 0 accepted" in refit("stage", "ingest", *run).stderr
    unknown = refit("stage", "profil", *run)
    assert (unknown.returncode, "no stage" in unknown.stderr) == (2, True)
    assert "refit runs" in error_line(refit("stage", "ingest", "--run-id", "other"))
    assert "no decision" in error_line(refit("stage", "promote", *run))


def test_rolling_back_names_reasons_and_refuses_what_is_not_there(
    refit: Refit, refit_home: Path, tmp_path: Path
) -> None:
    assert "no live version" in error_line(refit("rollback", "--reason", "r"))
    registry = Registry(FolderStorage(refit_home / "registry/classifier"))
    for number in (1, 2):
        (tmp_path / "model.keras").write_text(str(number))
        (tmp_path / "card.json").write_text(json.dumps({"run_id": f"run{number}", "test": {"balanced_accuracy": 0.5}}))
        content = {name: tmp_path / name for name in ("model.keras", "card.json")}
        registry.move_live(registry.publish(content), expected_generation=number - 1, reason=f"run{number}")
    done = refit("rollback", "--reason", "worse on Mondays")
    assert (done.returncode, registry.pointer().version) == (0, 1)
    listing = refit("models").stdout
    assert "worse on Mondays" in listing
    assert "2 → 1" in listing
    assert "there are: 1, 2" in error_line(refit("rollback", "--to", "9", "--reason", "r"))
    assert registry.pointer().version == 1


def test_help_names_every_command(refit: Refit) -> None:
    text = refit("--help").stdout
    for command in ("run", "start", "stage", "runs", "models", "rollback", "backbones"):
        assert f" {command} " in text


def test_backbones_are_listed_with_what_they_take(refit: Refit) -> None:
    done = refit("backbones")

    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.rstrip().split(maxsplit=5)[1:] for line in done.stdout.splitlines()}
    assert rows["inception_v3"][:4] == ["299", "75", "tf", "11"]
    assert rows["resnet50"][2:] == ["caffe", "17", "imagenet (download)"]
    assert rows["efficientnet_lite0"][4] == "imagenet (installed)"
    assert rows["inception_v1"][4] == "TensorFlow checkpoint"
