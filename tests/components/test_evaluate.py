from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from components import evaluate
from pipeline import files
from pipeline.settings import code_root, read_params, with_overrides
from tests.pipeline.evaluation.colours import IMAGES, attributes, features, manifest_rows, uris, write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after the stage, with the graph beside it."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFIT_HOME", str(folder / "home"))
        patch.chdir(folder)
        params = with_overrides(
            read_params(code_root() / "params.yaml"),
            ["train.parts=[fold-0, fold-1, final]", "evaluate.resamples=100", "evaluate.slices=[camera]"],
        )
        Path("params.yaml").write_text(yaml.safe_dump(params))
        Path("dvc.yaml").write_text((code_root() / "dvc.yaml").read_text())
        files.write_json(Path("live.json"), {"version": None, "generation": 0, "path": None, "digest": None})
        files.write_table(Path("data/assignment.parquet"), write(folder))
        files.write_table(Path("data/manifest/0001.parquet"), manifest_rows())
        files.write_table(Path("data/features/0001.parquet"), features())
        files.write_table(Path("data/attributes.parquet"), attributes())
        evaluate.main()
        for part in ("fold-0", "fold-1", "final"):
            files.write_text(Path(f"plots/curves/{part}.csv"), "epoch,loss,val_loss,accuracy,val_accuracy\n1,1,1,1,1\n")
        assert set(pq.read_table("data/predictions.parquet")["uri"].to_pylist()) < set(uris().values())
    return folder


def test_writes_the_declared_outputs(run: Path) -> None:
    declared = yaml.safe_load((run / "dvc.yaml").read_text())["stages"]["evaluate"]
    for output in (*declared["outs"], *declared["metrics"], *declared["plots"]):
        assert (run / (output if isinstance(output, str) else next(iter(output)))).is_file()
    assert pq.read_table(run / "data/predictions.parquet").num_rows == len(IMAGES) - 1
    metrics = files.read_json(run / "metrics/evaluate.json")
    assert metrics["test"]["images"] == 7
    assert {"by": "camera", "value": "left", "images": 5, "reason": "few images"} in metrics["slices_left_out"]


def test_dvc_draws_the_plots(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo  # at the module's top, before Airflow, it ends pytest's collection

    monkeypatch.chdir(run)
    Repo.init(str(run), no_scm=True, force=True).close()
    with Repo() as repo:
        drawn: dict[str, Any] = repo.plots.show()["workspace"]["sources"]["data"]
        shown = repo.metrics.show()[""]["data"]["metrics/evaluate.json"]["data"]

    assert shown["test"]["accuracy"] == pytest.approx(6 / 7)
    confusion = drawn["plots/confusion.csv"]["data"]
    assert sorted((row["actual"], row["predicted"]) for row in confusion if row["actual"] == "green") == [
        ("green", "green"),
        ("green", "green"),
        ("green", "red"),
    ]
    recall = drawn["plots/recall.csv"]["data"]
    assert [(row["label"], row["images"]) for row in recall] == [("green", "3"), ("blue", "2"), ("red", "2")]
    bins = drawn["plots/reliability.csv"]["data"]
    assert sum(int(row["images"]) for row in bins) == 7
    assert all(0 <= float(row["accuracy"]) <= 1 for row in bins)


def test_dvc_compares_metrics_in_a_git_repository(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo  # at the module's top, before Airflow, it ends pytest's collection

    monkeypatch.chdir(tmp_path)
    metrics = files.read_json(run / "metrics/evaluate.json")
    Path("dvc.yaml").write_text("metrics: [evaluate.json]\n")
    files.write_json(Path("evaluate.json"), metrics)
    author = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for command in (["init"], ["add", "."], [*author, "commit", "--message", "before"]):
        subprocess.run(["git", *command, "--quiet"] if command[0] != "add" else ["git", *command], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    metrics["test"]["accuracy"] = 1.0
    files.write_json(Path("evaluate.json"), metrics)

    with Repo() as repo:
        found = repo.metrics.diff()["diff"]["evaluate.json"]

    assert found["test.accuracy"] == {
        "old": pytest.approx(6 / 7),
        "new": 1.0,
        "diff": pytest.approx(1 / 7),
    }
