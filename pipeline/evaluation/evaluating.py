"""The whole measurement of a run: every fold's model on its fold, the final model and the live one on the test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.dataset.shard_index import load_index
from pipeline.evaluation import comparing, predictions, results
from pipeline.evaluation.intervals import Resampling
from pipeline.evaluation.measuring import Answers, predict
from pipeline.evaluation.metrics import Ints
from pipeline.settings import FINAL, Evaluate


@dataclass(frozen=True)
class Candidate:
    """What there is to measure."""

    models: Path  # holds <part>/model.keras
    shards: Path
    assignment: pa.Table
    uris: Mapping[str, str]  # image id to where it came from
    folds: int


@dataclass(frozen=True)
class Live:
    """The live model. `seen` are the ids of the images that it was trained on or selected by."""

    version: int
    model_file: Path
    classes: tuple[str, ...]
    seen: frozenset[str]


def read_live(pointer: Mapping[str, Any]) -> Live | None:
    """From the content of live.json; None if nothing is live."""
    if pointer["version"] is None:
        return None
    folder = Path(pointer["path"])
    seen = pq.read_table(folder / "training.parquet", columns=["image_id"])["image_id"].to_pylist()
    classes = files.read_json(folder / "card.json")["classes"]
    return Live(pointer["version"], folder / "model.keras", tuple(classes), frozenset(seen))


def evaluate(candidate: Candidate, live: Live | None, settings: Evaluate) -> tuple[pa.Table, dict[str, Any]]:
    """Returns the predictions (`predictions.SCHEMA`; folds first, then the test set) and metrics/evaluate.json.

    One model is in memory at a time. Raises `ModelError` and `DataError` as `measuring.predict` does.
    """
    index = load_index(candidate.shards)
    rows = {row["image_id"]: row for row in candidate.assignment.to_pylist()}
    how = Resampling(settings.resamples, settings.confidence, settings.seed)
    table: list[dict[str, Any]] = []
    folds = []

    def measure(model_file: Path, classes: int, ids: list[str], what: str) -> Answers:
        return predict(
            model_file, classes, candidate.shards, index, ids, batch_size=settings.batch_size, what=f"evaluate {what}"
        )

    for fold in range(candidate.folds):
        part = f"fold-{fold}"
        ids = [key for key, row in rows.items() if row["split"] in {"train", "val"} and row["fold"] == fold]
        found = measure(candidate.models / part / "model.keras", len(index.classes), ids, part)
        folds.append(results.of_fold(fold, _labels(found, rows), found.probabilities.astype(np.float64)))
        table += _table_rows(found, index.classes, rows, candidate.uris, part)

    ids = [key for key, row in rows.items() if row["split"] == "test"]
    found = measure(candidate.models / FINAL / "model.keras", len(index.classes), ids, "test")
    test_rows = _table_rows(found, index.classes, rows, candidate.uris, predictions.TEST)
    numbers = {
        "test": results.of_test(
            _labels(found, rows), found.probabilities.astype(np.float64), _groups(found, rows), index.classes, how
        ),
        "cross_validation": results.of_folds(folds),
        "live": None,
    }
    if live is not None:
        unseen = [image_id for image_id in found.ids if image_id not in live.seen]
        theirs = measure(live.model_file, len(live.classes), unseen, f"live version {live.version}")
        _add_live(test_rows, theirs, live.classes)
        ours = {row["image_id"]: row["predicted"] for row in test_rows}
        numbers["live"] = {
            "version": live.version,
            "excluded": len(found.ids) - len(unseen),
            **comparing.compare(
                _labels(theirs, rows),
                [ours[image_id] for image_id in theirs.ids],
                _names(theirs, live.classes),
                _groups(theirs, rows),
                classes=index.classes,
                live_classes=live.classes,
                how=how,
            ),
        }
    return pa.Table.from_pylist(table + test_rows, predictions.SCHEMA), results.without_nan(numbers)


def _labels(found: Answers, rows: Mapping[str, Mapping[str, Any]]) -> Ints:
    return np.array([rows[image_id]["class"] for image_id in found.ids], np.int64)


def _groups(found: Answers, rows: Mapping[str, Mapping[str, Any]]) -> Ints:
    names = np.array([rows[image_id]["group"] for image_id in found.ids], dtype=str)
    numbers: Ints = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return numbers


def _names(found: Answers, classes: tuple[str, ...]) -> list[str]:
    return [classes[number] for number in found.probabilities.argmax(axis=1)]


def _table_rows(
    found: Answers,
    classes: tuple[str, ...],
    rows: Mapping[str, Mapping[str, Any]],
    uris: Mapping[str, str],
    source: str,
) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            "uri": uris[image_id],
            "label": rows[image_id]["label"],
            "predicted": name,
            "confidence": float(probabilities.max()),
            "probabilities": probabilities.tolist(),
            "live_predicted": None,
            "live_confidence": None,
            "source": source,
        }
        for image_id, name, probabilities in zip(found.ids, _names(found, classes), found.probabilities, strict=True)
    ]


def _add_live(test_rows: list[dict[str, Any]], found: Answers, classes: tuple[str, ...]) -> None:
    by_id = dict(zip(found.ids, zip(_names(found, classes), found.probabilities.max(axis=1), strict=True), strict=True))
    for row in test_rows:
        if row["image_id"] in by_id:
            row["live_predicted"], confidence = by_id[row["image_id"]]
            row["live_confidence"] = float(confidence)
