"""`refit models`, `promote` and `rollback`: what they say, with which status they end, and registries made before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from pipeline import files, runs, settings
from pipeline.cli import main
from pipeline.cli.main import app
from pipeline.errors import TransientError
from pipeline.promotion.folder_storage import FolderStorage
from pipeline.promotion.registry import MODEL, Registry
from tests.pipeline.promotion.finished_run import finished_run
from tests.pipeline.promotion.models import content

Refit = Callable[..., Result]


@pytest.fixture
def refit(monkeypatch: pytest.MonkeyPatch) -> Refit:
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return call


@pytest.fixture
def made(refit_home: Path) -> Callable[..., Path]:
    """made(name, text, …): a decided run in $REFIT_HOME; arguments as of `finished_run`."""

    def make(name: str, text: str = "weights", **some: Any) -> Path:
        return finished_run(refit_home / "runs" / name, text, **some)

    return make


@pytest.fixture
def three(refit: Refit, made: Callable[..., Path]) -> Registry:
    """Three versions, the last one live."""
    for number in range(3):
        made(f"r{number + 1}", f"m{number}", generation=number, accuracy=0.8 + number / 20)
        assert refit("promote", f"r{number + 1}").exit_code == 0
    return runs.registry("classifier")


def test_promoting_a_run_makes_it_live_once(refit: Refit, made: Callable[..., Path]) -> None:
    run = made("r1")
    first = refit("promote", "r1", "--reason", "approved by the board")
    assert (first.exit_code, "Version 1 of classifier is live." in first.stdout) == (0, True)
    assert files.read_json(run / "run.json")["status"] == runs.PROMOTED
    assert (run / "report.html").exists()
    assert refit("promote", "r1").exit_code == 0
    [move] = runs.registry("classifier").history()
    assert (move["reason"], move["run"]) == ("approved by the board", "r1")


def test_repeating_a_promotion_that_was_rolled_back_says_what_is_live(refit: Refit, three: Registry) -> None:
    refit("rollback", "--reason", "worse")
    again = refit("promote", "r3")
    assert again.exit_code == 0
    assert "Version 3 of classifier was made live in generation 3; by now version 2 is (generation 4)." in " ".join(
        again.stdout.split()
    )
    assert three.pointer().version == 2


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        ({"promote": False}, 65, "is negative: Refused: Test accuracy is 0.100"),
        ({"decision": {"model_digest": "0" * 64}}, 65, "is about the model 000000000000"),
        ({"generation": 7}, 65, "from generation 7 to 0"),
    ],
    ids=["negative", "of another model", "of another time"],
)
def test_a_promotion_without_a_decision_for_it_is_refused(
    refit: Refit, made: Callable[..., Path], arguments: dict[str, Any], status: int, problem: str
) -> None:
    made("r1", **arguments)
    done = refit("promote", "r1")
    assert (done.exit_code, problem in done.stderr, "Fix: " in done.stderr) == (status, True, True), done.stderr
    assert runs.registry("classifier").pointer().version is None
    assert runs.find("r1").record["status"] == runs.RUNNING, "as it was"
    assert "no run 'r2'" in refit("promote", "r2").stderr


def test_versions_are_listed_with_aliases_and_moves(refit: Refit, three: Registry, tmp_path: Path) -> None:
    three.publish(content(tmp_path, "never live"))
    listed = refit("models").stdout
    assert refit("models", "list").stdout == listed
    rows = [line.split() for line in listed.splitlines()]
    assert ["2", "r2", "0.700", "[0.600,", "0.800]", "previous"] in rows
    assert ["3", "r3", "0.700", "[0.600,", "0.800]", "live"] in rows
    assert any("2 → 3 promote by" in line and "(run r3): Promote: better." in line for line in listed.splitlines())

    found = json.loads(refit("models", "--json").stdout)
    assert found == json.loads(refit("models", "list", "--json").stdout)
    assert found["aliases"] == {"live": 3, "previous": 2, "candidate": 4}
    assert [(row["version"], row["run_id"], row["aliases"]) for row in found["versions"]] == [
        (1, "r1", []),
        (2, "r2", ["previous"]),
        (3, "r3", ["live"]),
        (4, None, ["candidate"]),
    ]
    assert [(move["version"], move["previous"], move["kind"]) for move in found["moves"]] == [
        (1, None, "promote"),
        (2, 1, "promote"),
        (3, 2, "promote"),
    ]


def test_a_version_is_shown_by_number_and_by_alias(refit: Refit, three: Registry) -> None:
    shown = refit("models", "show", "previous").stdout
    assert refit("models", "show", "2").stdout == shown
    assert three.uri(2) in shown
    assert "## What was not measured" in shown
    assert "| accuracy | 0.850 [0.770, 0.920] |" in shown
    found = json.loads(refit("models", "show", "2", "--json").stdout)
    assert (found["version"], found["aliases"], found["card"]["run_id"]) == (2, ["previous"], "r2")
    assert [move["run"] for move in found["moves"]] == ["r2"]
    assert "there are: 1, 2, 3" in refit("models", "show", "9").stderr
    assert "no candidate version" in refit("models", "show", "candidate").stderr
    assert "Expected an alias" in refit("models", "show", "newest").stderr


def test_two_versions_are_compared(refit: Refit, three: Registry) -> None:
    done = refit("models", "diff", "1", "live")
    line = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["accuracy"])
    assert line.split() == ["accuracy", "0.800", "[0.720,", "0.870]", "0.900", "[0.820,", "0.970]", "+0.100"]
    assert "The settings are the same." in done.stdout
    found = json.loads(refit("models", "diff", "1", "live", "--json").stdout)
    assert (found["a"], found["b"], found["params"]) == (1, 3, {})


def test_rolling_back_says_where_a_further_one_leads(refit: Refit, three: Registry) -> None:
    first = refit("rollback", "--reason", "worse on Mondays")
    assert first.exit_code == 0
    assert "Version 2 of classifier is live (was 3)." in first.stdout
    assert "A further rollback leads to version 1." in first.stdout
    again = refit("rollback", "--reason", "r", "--to", "previous")
    assert "Version 1 of classifier is live (was 2)." in again.stdout
    assert "Nothing lies further back." in again.stdout
    assert "also live once: 2, 3" in refit("rollback", "--reason", "r").stderr
    assert "nothing was changed" in refit("rollback", "--reason", "r", "--to", "1").stdout
    assert [move["version"] for move in three.history()] == [1, 2, 3, 2, 1]


def _before(root: Path) -> None:
    """A registry as it was written before moves had kinds and cards had more than a test."""
    for number in (1, 2, 3):
        folder = root / str(number)
        files.write_text(folder / MODEL, f"model {number}")
        files.write_text(folder / "params.yaml", f"train: {{seed: {number}}}\n")
        per_class = {"cat": {"precision": 1.0, "recall": 0.5, "f1": 0.6, "support": 4}}
        test = {"images": 4, "accuracy": 0.5 + number / 10, "balanced_accuracy": 0.5, "per_class": per_class}
        files.write_json(
            folder / "card.json",
            {"run_id": f"run{number}", "classes": ["cat"], "images": {"train": 9, "val": 2}, "test": test}
            | {"cross_validation": {"folds": []}, "created_at": "2025-01-01T00:00:00+00:00"},
        )
        names = (MODEL, "params.yaml", "card.json")
        files.write_json(folder / "checksums.json", {name: files.sha256(folder / name) for name in names})
    moves = [(1, None, "run run1: Promote"), (2, 1, "run run2: Promote"), (3, 2, "run run3: Promote")]
    for generation, (version, previous, reason) in enumerate([*moves, (2, 3, "rollback: worse")], start=1):
        files.write_json(
            root / f"live/{generation:08d}.json",
            {"generation": generation, "version": version, "previous": previous, "reason": reason, "by": "anna"}
            | {"at": "2025-01-01T00:00:00+00:00", "digest": files.sha256(root / str(version) / MODEL)},
        )


def test_a_registry_made_before_is_listed_shown_compared_and_rolled_back(refit: Refit, refit_home: Path) -> None:
    _before(refit_home / "registry/classifier")
    listed = refit("models")
    assert (listed.exit_code, "3 → 2 rollback by anna: rollback: worse" in listed.stdout) == (0, True)
    assert json.loads(refit("models", "--json").stdout)["aliases"] == {"live": 2, "previous": 1, "candidate": None}
    shown = refit("models", "show", "1")
    assert (shown.exit_code, '"run_id": "run1"' in shown.stdout) == (0, True)
    compared = json.loads(refit("models", "diff", "1", "2", "--json").stdout)
    assert compared["metrics"]["accuracy"]["difference"] == pytest.approx(0.1)
    assert (compared["params"], compared["same_data"]) == ({"train.seed": [1, 2]}, None)
    assert "seed" in refit("models", "diff", "1", "2").stdout
    done = refit("rollback", "--reason", "still worse")
    assert (done.exit_code, runs.registry("classifier").live().version) == (0, 1), "not 3, which was rolled back from"


def test_a_registry_that_cannot_be_reached_ends_with_try_again(
    refit: Refit, made: Callable[..., Path], tmp_path: Path
) -> None:
    made("r1", params={"registry": {"location": str(tmp_path / "not mounted")}})
    done = refit("promote", "r1")
    assert (done.exit_code, "registry.location: expected a folder" in done.stderr) == (75, True)
    (tmp_path / "not mounted").mkdir()
    assert refit("promote", "r1").exit_code == 0
    assert (tmp_path / "not mounted/classifier/live/00000001.json").exists()


def test_a_mirror_that_fails_is_a_warning(refit: Refit, made: Callable[..., Path]) -> None:
    made("r1", params={"registry": {"mlflow_uri": "http://127.0.0.1:9"}})
    done = refit("promote", "r1")
    assert (done.exit_code, runs.registry("classifier").pointer().version) == (0, 1)
    assert "warning: MLflow was not told which version is live. registry.mlflow_uri" in done.stderr
    assert "Fix: " in done.stderr
    again = refit("models", "mirror")
    assert (again.exit_code, "Connection refused" in again.stderr) == (75, True)
    assert "registry.mlflow_uri is not set" in refit("models", "mirror", "--model", "other").stderr


def test_a_rollback_is_done_when_the_registry_stops_answering_after_it(
    refit: Refit, three: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_move, move, lost = FolderStorage.add_move, FolderStorage.move, Event()

    def last_write(self: FolderStorage, new: Any) -> bool:
        done = add_move(self, new)
        lost.set()
        return done

    def read(self: FolderStorage, generation: int) -> dict[str, Any]:
        if lost.is_set():
            raise TransientError("The registry does not answer.", fix="wait")
        return move(self, generation)

    monkeypatch.setattr(FolderStorage, "add_move", last_write)
    monkeypatch.setattr(FolderStorage, "move", read)
    done = refit("rollback", "--reason", "worse")
    monkeypatch.undo()
    assert (done.exit_code, "Version 2 of classifier is live (was 3)." in done.stdout) == (0, True)
    assert "urther" not in done.stdout
    assert [row["version"] for row in three.history()] == [1, 2, 3, 2]


def test_nothing_from_outside_steers_the_terminal(refit: Refit, made: Callable[..., Path]) -> None:
    said = "One is 'a\x1b[31m.png' [bold]."
    rule = {"rule": "leakage", "passed": True, "value": 0, "threshold": 0, "explanation": said}
    made("r1", decision={"rules": [rule], "summary": f"Promote: {said}"}, classes=("cat", "d\x1b]0;dog"))
    promoted = refit("promote", "r1")
    assert (promoted.exit_code, promoted.stdout.count(r"a\x1b[31m.png' [bold]")) == (0, 2)
    made("r2", decision={"promote": False, "summary": said})
    refused = refit("promote", "r2")
    assert (refused.exit_code, r"a\x1b[31m.png" in refused.stderr) == (65, True)
    card = refit("models", "show", "1")
    assert (card.exit_code, r"d\x1b]0;dog" in card.stdout, "\n| accuracy |" in card.stdout) == (0, True, True)
    assert "\x1b" not in promoted.stdout + refused.stderr + card.stdout


@pytest.mark.parametrize("text", ['{"run_id": "r2", "te', "[]", "\udcff"], ids=["cut off", "a list", "no text"])
def test_a_version_with_a_damaged_card_is_listed_and_named(
    refit: Refit, three: Registry, refit_home: Path, text: str
) -> None:
    card = refit_home / "registry/classifier/2/card.json"
    card.chmod(0o644)
    card.write_bytes(text.encode(errors="surrogateescape"))
    listed = refit("models", "--json")
    assert [row["run_id"] for row in json.loads(listed.stdout)["versions"]] == ["r1", None, "r3"]
    assert refit("models").exit_code == 0
    shown = refit("models", "show", "2")
    assert (shown.exit_code, "Version 2 is damaged: card.json. Fix: restore it" in shown.stderr) == (65, True)


def test_a_version_with_damaged_checksums_is_named(refit: Refit, three: Registry, refit_home: Path) -> None:
    checksums = refit_home / "registry/classifier/2/checksums.json"
    checksums.chmod(0o644)
    checksums.write_text("{")
    done = refit("rollback", "--reason", "worse")
    assert (
        done.exit_code,
        "Version 2 is damaged: checksums.json. Fix: go further back with --to 1" in done.stderr,
    ) == (
        65,
        True,
    )
    assert refit("rollback", "--reason", "worse", "--to", "1").exit_code == 0


def test_a_relative_location_is_the_same_registry_from_every_directory(
    refit: Refit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root, elsewhere = settings.refit_home(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    stated = settings.read_params(settings.code_root() / "params.yaml")
    stated["registry"]["location"] = "models"
    files.write_text(root / "params.yaml", yaml.safe_dump(stated))
    for directory in (root, elsewhere):
        monkeypatch.chdir(directory)
        assert runs.registry("classifier").storage.base == str(root / "models/classifier")
        assert main._params("s", None, None)["registry"]["location"] == str(root / "models")
        given = main._params("s", None, ["registry.location=mine"])
        assert given["registry"]["location"] == str(directory / "mine")
    assert refit("models").exit_code == 75, "it is not there yet"
    (root / "models").mkdir()
    assert json.loads(refit("models", "--json").stdout)["location"] == str(root / "models/classifier")
