"""What the stages before `serve` leave of a tiny model: models/final, shards and predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.dataset import records
from pipeline.dataset.shard_index import load_index
from pipeline.evaluation import predictions
from pipeline.training import export, forms
from tests.pipeline.training import tiny, workspace


def write(root: Path) -> None:
    """`tiny.trained`, exported, and its answers to all images, of which three are held out."""
    assignment = workspace.write(root)
    model = tiny.trained().whole
    (root / "models/final").mkdir(parents=True)
    forms.write(model, root / "models/final", ("saved_model",), tiny.pictures(4)[0])
    history = {"backbone": tiny.ENTRY.name, "filters": [], "classes": list(tiny.CLASSES)}
    files.write_json(root / "models/final/history.json", history)
    pictures = squares(root, assignment["image_id"].to_pylist())
    rows = []
    for row in assignment.to_pylist():
        probabilities = model.predict_on_batch(pictures[row["image_id"]][None])[0]
        rows.append(
            {
                "image_id": row["image_id"],
                "uri": row["image_id"],
                "label": row["label"],
                "predicted": tiny.CLASSES[probabilities.argmax()],
                "confidence": float(probabilities.max()),
                "probabilities": probabilities.tolist(),
                "live_predicted": None,
                "live_confidence": None,
                "source": "test" if row["split"] == "test" else f"fold-{row['fold']}",
            }
        )
    table = pa.Table.from_pylist(rows, predictions.SCHEMA)
    files.write_table(root / "data/predictions.parquet", table)


def squares(root: Path, ids: list[str]) -> dict[str, np.ndarray]:
    folder = root / "data/shards"
    pictures = records.dataset(folder, load_index(folder), dict.fromkeys(ids, 0), size=tiny.SIZE)
    return {picture["id"].decode(): picture["image"] for picture in pictures.as_numpy_iterator()}


def answered(root: Path) -> pa.Table:
    return pq.read_table(root / "data/predictions.parquet")


def classes(root: Path) -> tuple[str, ...]:
    return export.class_names(export.load(root / "models/final/model.keras"))
