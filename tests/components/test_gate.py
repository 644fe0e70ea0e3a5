from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import gate
from pipeline import files
from pipeline.dataset import assignment
from tests.pipeline.promotion.gate import figures


@pytest.fixture
def decided(run: Path) -> Path:
    """A run whose stages before `gate` are done; its figures pass every rule that params.yaml holds."""
    rows = [
        {"image_id": f"{label}-{number}", "label": label, "class": place, "group": f"{label}-{number}"}
        | {"split": "test" if number < 3 else "train", "fold": -1, "batch": "0001", "reason": None, "copies": 0}
        for place, label in enumerate(("cat", "dog"))
        for number in range(6)
    ]
    files.write_table(run / "data/assignment.parquet", pa.Table.from_pylist(rows, assignment.SCHEMA))
    files.write_bytes(run / "models/final/model.keras", b"weights")
    digest = files.sha256(run / "models/final/model.keras")
    files.write_json(run / "metrics/evaluate.json", figures.metrics() | {"live": None})
    files.write_json(run / "metrics/serving.json", figures.serving() | {"model_digest": digest})
    files.write_json(run / "reports/validation/verdict.json", {"verdict": "warn"})
    files.write_bytes(run / "pipeline/code.py", b"")
    return run


def test_the_decision_binds_what_it_is_about_and_repeats(decided: Path) -> None:
    gate.main()

    decision = files.read_json(Path("decision.json"))
    assert decision["promote"], decision["summary"]
    assert decision["model_digest"] == files.sha256(Path("models/final/model.keras"))
    assert decision["forms_digest"] == files.sha256_tree(Path("models/final"))
    assert decision["data_digest"] == files.sha256(Path("data/assignment.parquet"))
    assert (decision["live_version"], decision["live_generation"]) == (None, 0)
    assert decision["test_uses"] == {"median": 0, "images": 6, "unused": 6}
    assert [row["passed"] for row in decision["rules"]] == [True] * len(decision["rules"])
    used = pq.read_table(f"data/decisions/{decided.name}.parquet")["image_id"].to_pylist()
    assert used == [f"{label}-{number}" for label in ("cat", "dog") for number in range(3)]

    before = Path("decision.json").read_bytes()
    gate.main()
    assert Path("decision.json").read_bytes() == before


def test_decisions_of_earlier_runs_are_counted(decided: Path) -> None:
    for run in ("first", "second"):
        files.write_table(Path(f"data/decisions/{run}.parquet"), pa.table({"image_id": ["cat-0", "cat-1", "dog-0"]}))
    gate.main()
    assert files.read_json(Path("decision.json"))["test_uses"] == {"median": 1.0, "images": 6, "unused": 3}


def test_another_model_than_the_one_that_was_tried_is_refused(decided: Path) -> None:
    files.write_bytes(decided / "models/final/model.keras", b"others")
    gate.main()
    decision = files.read_json(Path("decision.json"))
    assert not decision["promote"]
    assert "has tried another model" in decision["summary"]


def test_a_class_that_nobody_teaches_any_more_is_refused(decided: Path) -> None:
    table = pq.read_table(decided / "data/assignment.parquet").to_pylist()
    kept = [row for row in table if (row["label"], row["split"]) != ("dog", "train")]
    files.write_table(decided / "data/assignment.parquet", pa.Table.from_pylist(kept, assignment.SCHEMA))
    files.write_json(decided / "live.json", figures.SECOND)
    files.write_json(decided / "metrics/evaluate.json", figures.metrics())
    gate.main()
    assert "has not learned 'dog'" in files.read_json(Path("decision.json"))["summary"]
