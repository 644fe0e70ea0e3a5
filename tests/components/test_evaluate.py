from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from components import evaluate
from pipeline import files
from pipeline.settings import code_root, read_params, with_overrides
from tests.pipeline.evaluation.colours import IMAGES, attributes, features, manifest_rows, uris, write


def test_writes_the_declared_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    params = with_overrides(
        read_params(code_root() / "params.yaml"), ["train.parts=[fold-0, fold-1, final]", "evaluate.resamples=100"]
    )
    Path("params.yaml").write_text(yaml.safe_dump(params))
    files.write_json(Path("live.json"), {"version": None, "generation": 0, "path": None, "digest": None})
    files.write_table(Path("data/assignment.parquet"), write(tmp_path))
    files.write_table(Path("data/manifest/0001.parquet"), manifest_rows())
    files.write_table(Path("data/features/0001.parquet"), features())
    files.write_table(Path("data/attributes.parquet"), attributes())

    evaluate.main()

    predictions = pq.read_table("data/predictions.parquet")
    assert predictions.num_rows == len(IMAGES) - 1
    assert set(predictions["uri"].to_pylist()) < set(uris().values())
    metrics = files.read_json(Path("metrics/evaluate.json"))
    assert metrics["test"]["images"] == 7
    lines = Path("plots/confusion.csv").read_text().splitlines()
    assert lines[0].replace('"', "") == "actual,predicted"
    assert len(lines) == 8
