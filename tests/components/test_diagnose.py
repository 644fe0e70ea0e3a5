from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import diagnose
from pipeline import files
from pipeline.dataset import assignment
from tests.pipeline.report.workspace import CLASSES, Workspace


def test_finds_what_is_wrong_in_the_files_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFIT_HOME", str(tmp_path / "home"))
    run = Workspace(tmp_path / "run").until("evaluate")
    monkeypatch.chdir(run.path)
    answers = pq.read_table("data/predictions.parquet", columns=["image_id", "label"]).to_pylist()
    training = [{"image_id": f"t{number}", "label": CLASSES[number % 8]} for number in range(80)]
    rows = [
        row
        | {"class": 0, "group": row["image_id"], "split": split, "fold": -1 if split == "test" else 0, "batch": "0001"}
        for split, chosen in (("test", answers), ("train", training))
        for row in chosen
    ]
    files.write_table(Path("data/assignment.parquet"), pa.Table.from_pylist(rows, assignment.SCHEMA))
    sizes = [{"image_id": row["image_id"], "width": 20, "height": 16} for row in rows]
    files.write_table(Path("data/features/0001.parquet"), pa.Table.from_pylist(sizes))

    diagnose.main()

    causes = {cause["cause"]: cause for cause in files.read_json(Path("reports/diagnosis.json"))["causes"]}
    assert causes["images too small"]["evidence"][0].startswith("The median image has a short side of 16 pixels")
    assert (
        causes["too few images"]["evidence"][0] == "Half of the 8 classes have 10 different training pictures or fewer."
    )
    assert "brightness (distance 0.31)" in causes["drift"]["evidence"][0]
    assert "overfitting" not in causes
