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
from pipeline.dataset.duplicate_links import Links
from pipeline.dataset.shard_index import load_index
from pipeline.evaluation import comparing, leakage, predictions, results, slices
from pipeline.evaluation.intervals import Resampling
from pipeline.evaluation.measuring import Answers, predict
from pipeline.evaluation.metrics import Floats, Ints
from pipeline.evaluation.slices import Slicing
from pipeline.settings import FINAL, Evaluate

FEATURES = ("image_id", "width", "height", "brightness")
_Rows = Mapping[str, Mapping[str, Any]]  # image id to its row of the assignment


@dataclass(frozen=True)
class Candidate:
    """What there is to measure.

    models: holds <part>/model.keras and <part>/history.json.
    manifest: its current rows.
    features: `FEATURES` of at least the test images; attributes: data/attributes.parquet.
    """

    models: Path
    shards: Path
    manifest: pa.Table
    assignment: pa.Table
    features: pa.Table
    attributes: pa.Table
    links: Links
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

    One model is in memory at a time. Raises `ModelError` and `DataError` as `measuring.predict` does, `SettingsError`
    for a slice that is no column.
    """
    slices.check_columns(candidate.attributes, settings.slices)
    index = load_index(candidate.shards)
    classes = index.classes
    rows = {row["image_id"]: row for row in candidate.assignment.to_pylist()}
    columns = (candidate.manifest[name].to_pylist() for name in ("image_id", "uri"))
    uris = dict(zip(*columns, strict=True))
    how = Resampling(settings.resamples, settings.confidence, settings.seed)
    table: list[dict[str, Any]] = []
    folds = []

    def measure(model_file: Path, number: int, ids: list[str], what: str) -> Answers:
        return predict(
            model_file, number, candidate.shards, index, ids, batch_size=settings.batch_size, what=f"evaluate {what}"
        )

    for fold in range(candidate.folds):
        part = f"fold-{fold}"
        ids = [key for key, row in rows.items() if row["split"] in {"train", "val"} and row["fold"] == fold]
        found = measure(candidate.models / part / "model.keras", len(classes), ids, part)
        folds.append(results.of_fold(fold, _labels(found, rows), _probabilities(found)))
        table += _table_rows(found, classes, rows, uris, part)

    ids = [key for key, row in rows.items() if row["split"] == "test"]
    found = measure(candidate.models / FINAL / "model.keras", len(classes), ids, "test")
    test_rows = _table_rows(found, classes, rows, uris, predictions.TEST)
    test, calibration = results.of_test(
        _labels(found, rows),
        _probabilities(found),
        _groups(found, rows),
        classes,
        temperature=_temperature(candidate.models / FINAL / "history.json"),
        top_k=settings.top_k,
        how=how,
    )
    compared = None
    if live is not None:
        unseen = [image_id for image_id in found.ids if image_id not in live.seen]
        theirs = measure(live.model_file, len(live.classes), unseen, f"live version {live.version}")
        _add_live(test_rows, theirs, live.classes)
        compared = {
            "version": live.version,
            "excluded": len(found.ids) - len(unseen),
            **_compared(found, theirs, live, rows, classes, how),
        }
    parts, left_out = _slices(
        test_rows, candidate, rows, settings, how, live_classes=None if live is None else live.classes
    )
    numbers = {
        "test": test,
        "calibration": calibration,
        "cross_validation": results.of_folds(folds),
        "live": compared,
        "slices": parts,
        "slices_left_out": left_out,
        "leakage": leakage.find(candidate.manifest, candidate.assignment, candidate.links),
    }
    return pa.Table.from_pylist(table + test_rows, predictions.SCHEMA), results.without_nan(numbers)


def _temperature(history: Path) -> float | None:
    calibration = files.read_json(history).get("calibration") if history.is_file() else None
    return None if calibration is None else float(calibration["temperature"])


def _compared(
    ours: Answers, theirs: Answers, live: Live, rows: _Rows, classes: tuple[str, ...], how: Resampling
) -> dict[str, Any]:
    """`theirs` are of some of the images of `ours`."""
    place = {image_id: number for number, image_id in enumerate(ours.ids)}
    same = Answers(theirs.ids, ours.probabilities[[place[image_id] for image_id in theirs.ids]])
    labels = _labels(theirs, rows)
    known = {"classes": classes, "live_classes": live.classes}
    return {
        **comparing.compare(
            labels, _names(same, classes), _names(theirs, live.classes), _groups(theirs, rows), **known, how=how
        ),
        **comparing.log_losses(labels, _probabilities(same), _probabilities(theirs), **known),
    }


def _slices(
    test_rows: list[dict[str, Any]],
    candidate: Candidate,
    rows: _Rows,
    settings: Evaluate,
    how: Resampling,
    *,
    live_classes: tuple[str, ...] | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`live_classes`: None without a live model. What it does not know, it cannot get right: no image to compare on."""
    ids = [row["image_id"] for row in test_rows]
    features = {row["image_id"]: row for row in candidate.features.to_pylist()}
    sides = [min(features[image_id]["width"], features[image_id]["height"]) for image_id in ids]
    own, left_out = slices.of_columns(candidate.attributes, settings.slices, ids)
    slicings: list[Slicing] = [
        slices.named(slices.LABEL, [row["label"] for row in test_rows]),
        slices.named(slices.BATCH, [rows[image_id]["batch"] for image_id in ids]),
        slices.thirds(slices.SIZE, sides, slices.of_pixels),
        slices.thirds(slices.BRIGHTNESS, [features[image_id]["brightness"] for image_id in ids], slices.of_brightness),
        *own,
    ]
    answered = None
    if live_classes is not None:
        answered = {
            number: row["live_predicted"] == row["label"]
            for number, row in enumerate(test_rows)
            if row["live_predicted"] is not None and row["label"] in live_classes
        }
    found, small = slices.measure(
        slicings,
        np.array([row["predicted"] == row["label"] for row in test_rows], bool),
        answered,
        _numbers([row["group"] for row in test_rows]),
        smallest=settings.min_slice,
        how=how,
    )
    return found, left_out + small


def _labels(found: Answers, rows: _Rows) -> Ints:
    return np.array([rows[image_id]["class"] for image_id in found.ids], np.int64)


def _probabilities(found: Answers) -> Floats:
    return found.probabilities.astype(np.float64)


def _groups(found: Answers, rows: _Rows) -> Ints:
    return _numbers([rows[image_id]["group"] for image_id in found.ids])


def _numbers(names: list[str]) -> Ints:
    numbers: Ints = np.unique(np.array(names, dtype=str), return_inverse=True)[1].astype(np.int64)
    return numbers


def _names(found: Answers, classes: tuple[str, ...]) -> list[str]:
    return [classes[number] for number in found.probabilities.argmax(axis=1)]


def _table_rows(
    found: Answers, classes: tuple[str, ...], rows: _Rows, uris: Mapping[str, str], source: str
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
            "live_probabilities": None,
            "source": source,
            "group": rows[image_id]["group"],
        }
        for image_id, name, probabilities in zip(found.ids, _names(found, classes), found.probabilities, strict=True)
    ]


def _add_live(test_rows: list[dict[str, Any]], found: Answers, classes: tuple[str, ...]) -> None:
    by_id = dict(zip(found.ids, zip(_names(found, classes), found.probabilities, strict=True), strict=True))
    for row in test_rows:
        if row["image_id"] in by_id:
            row["live_predicted"], probabilities = by_id[row["image_id"]]
            row["live_confidence"] = float(probabilities.max())
            row["live_probabilities"] = probabilities.tolist()
