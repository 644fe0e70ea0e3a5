from __future__ import annotations

from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.training import curves
from tests.pipeline.training.phases import FINETUNE, HEAD


def test_epochs_go_on_through_the_phases(tmp_path: Path) -> None:
    curves.write(tmp_path / "final.csv", [HEAD, FINETUNE])

    assert (tmp_path / "final.csv").read_text() == (
        "phase,epoch,loss,accuracy,val_loss,val_accuracy,learning_rate\n"
        "head,1,1.5,0.25,1.25,0.375,0.01\n"
        "head,2,1.0,0.5,1.125,0.625,0.005\n"
        "finetune,3,0.5,0.75,0.875,1.0,\n"
    )


def test_a_phase_without_a_single_epoch_has_no_row(tmp_path: Path) -> None:
    empty = {"name": "none", "loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}

    curves.write(tmp_path / "final.csv", [empty, FINETUNE])

    assert (tmp_path / "final.csv").read_text().splitlines()[1:] == ["finetune,1,0.5,0.75,0.875,1.0,"]


def test_curves_of_different_lengths_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        curves.write(tmp_path / "final.csv", [{**HEAD, "val_loss": [1.0]}])


def test_dvc_draws_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    curves.write(tmp_path / "plots/curves/final.csv", [HEAD, FINETUNE])
    (tmp_path / "dvc.yaml").write_text("plots:\n  - plots/curves: {x: epoch, y: [loss, val_loss]}\n")

    with Repo() as repo:
        source = repo.plots.show()["workspace"]["sources"]["data"]["plots/curves/final.csv"]

    rows = source["data"]
    assert [(row["epoch"], row["loss"], row["val_loss"]) for row in rows] == [
        ("1", "1.5", "1.25"),
        ("2", "1.0", "1.125"),
        ("3", "0.5", "0.875"),
    ]
