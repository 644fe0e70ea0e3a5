"""A run that has been decided on, with a model of a few bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from pipeline import files
from pipeline.dataset import manifest
from pipeline.promotion.promote import FINAL
from pipeline.settings import code_root, read_params
from pipeline.training import card
from tests.pipeline.profiling import tables
from tests.pipeline.training.phases import FINETUNE, HEAD

CLASSES = ("cat", "dog", "eel")


def finished_run(
    folder: Path,
    text: str = "weights",
    *,
    promote: bool = True,
    generation: int = 0,
    classes: tuple[str, ...] = CLASSES,
    accuracy: float = 0.9,
    params: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    decision: dict[str, Any] | None = None,
) -> Path:
    """`folder`, with what the stages up to the gate leave. `text`: what the model's files say; `generation`: of the
    live model that it was compared with; `metrics` and `decision`: further keys of evaluate.json and decision.json."""
    settings = read_params(code_root() / "params.yaml")
    settings["ingest"]["source"] = "/photos/pets"
    for section, changed in (params or {}).items():
        settings[section] |= changed
    files.write_text(folder / "params.yaml", yaml.safe_dump(settings, sort_keys=False))
    files.write_text(folder / "dvc.lock", "schema: '2.0'\n")
    files.write_json(
        folder / "run.json",
        {"run_id": folder.name, "model": "classifier", "status": "running", "owner": None, "parent": None}
        | {"created_at": "2026-03-01T02:15:00+00:00", "scheduled": False, "fingerprint": "cd" * 32},
    )
    _tables(folder)
    _model(folder, text, classes)
    _metrics(folder, classes, accuracy, metrics or {})
    final = folder / FINAL
    files.write_json(
        folder / "decision.json",
        {
            "promote": promote,
            "summary": "Promote: better." if promote else "Refused: Test accuracy is 0.100; the floor is 0.500.",
            "rules": [
                {"rule": "accuracy floor", "passed": promote, "value": accuracy, "threshold": 0.5}
                | {"explanation": f"Test accuracy is {accuracy:.3f}; the floor is 0.500."}
            ],
            "warnings": [],
            "borderline": False,
            "test_uses": {"median": 0, "images": 2, "unused": 2},
            "model_digest": files.sha256(final / "model.keras"),
            "forms_digest": files.sha256_tree(final),
            "live_version": None,
            "live_generation": generation,
            "data_digest": files.sha256(folder / "data/assignment.parquet"),
            "code_digest": "56" * 32,
            **(decision or {}),
        },
    )
    return folder


def _tables(folder: Path) -> None:
    features = tables.table(6)
    ids, labels = features["image_id"].to_pylist(), features["label"].to_pylist()
    rows = [
        {"image_id": key, "uri": f"/photos/pets/{label}/{key}.jpg", "source_version": "1", "label": label, "bytes": 9}
        | {"batch": "0001", "ingested_at": datetime(2026, 3, 1, tzinfo=UTC), "notes": [], "removed": False}
        for key, label in zip(ids, labels, strict=True)
    ]
    files.write_table(folder / "data/manifest/0001.parquet", pa.Table.from_pylist(rows, manifest.SCHEMA))
    files.write_table(folder / "data/features/0001.parquet", features)
    splits = ["train", "train", "val", "test", "test", "quarantine"]
    files.write_table(folder / "data/assignment.parquet", pa.table({"image_id": ids, "split": splits}))


def _model(folder: Path, text: str, classes: tuple[str, ...]) -> None:
    final = folder / FINAL
    history = {
        "phases": [{**HEAD, "best_epoch": 1, "seconds": 3.5}, {**FINETUNE, "best_epoch": 0, "seconds": 60.25}],
        "kept_phase": "head",
        "classes": list(classes),
        "images": {"train": 2, "val": 1, "copies": 0},
        "recipe": {"name": "standard", "hidden": 0, "phases": []},
        "environment": {"seed": 7, "python": "3.11.7"},
        "backbone": "resnet50",
        "weights": "imagenet",
        "input_size": 224,
        "filters": [],
        "parity": {"model.keras": 0.0},
    }
    files.write_json(final / "history.json", history)
    card.write(final / "card.md", history, name="classifier", images={"train": {"cat": 1, "dog": 1}, "val": {"cat": 1}})
    for name in ("model.keras", "model.tflite", "saved_model/saved_model.pb", "saved_model/variables/variables.index"):
        files.write_text(final / name, f"{text} {name}")


def _metrics(folder: Path, classes: tuple[str, ...], accuracy: float, further: dict[str, Any]) -> None:
    support = dict(zip(classes, (40, 6, 0, 30), strict=False))
    per_class = {
        label: {"precision": 0.8, "recall": 0.7 if support[label] else None, "f1": 0.75, "support": support[label]}
        | dict.fromkeys(("recall_low", "recall_high", "roc_auc", "average_precision"))
        for label in classes
    }
    test = {
        "images": sum(support.values()),
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.08,
        "accuracy_high": accuracy + 0.07,
        "balanced_accuracy": 0.7,
        "balanced_accuracy_low": 0.6,
        "balanced_accuracy_high": 0.8,
        "macro_f1": 0.75,
        "log_loss": 0.4,
        "calibration_error": 0.05,
        **dict.fromkeys(
            f"{name}_{end}" for name in ("macro_f1", "log_loss", "calibration_error") for end in ("low", "high")
        ),
        **dict.fromkeys(
            ("macro_precision", "weighted_precision", "weighted_recall", "weighted_f1", "average_precision")
        ),
        "roc_auc": None,
        "top_k": {"2": {"value": 0.95, "low": 0.9, "high": 1.0}},
        "per_class": per_class,
    }
    folds = [{"fold": fold, "images": 20, "accuracy": 0.8, "balanced_accuracy": 0.75} for fold in range(3)]
    cross = {"folds": folds, "balanced_accuracy_mean": 0.75, "balanced_accuracy_std": 0.0}
    calibration = {"error": 0.05, "noise": 0.1, "temperature": 1.0, "error_before": 0.05, "log_loss_before": 0.4}
    content = {
        "test": test,
        "calibration": {**calibration, "bins": []},
        "cross_validation": cross,
        "live": None,
        "slices": [],
        "slices_left_out": [],
        "leakage": {"groups": 0, "images": 0, "folds": 0, "examples": []},
    }
    files.write_json(folder / "metrics/evaluate.json", content | further)
    batch = {"batch": "0001", "listed": 8, "known": 0, "accepted": 6, "removed": 0, "quarantined": {"damaged": 2}}
    counts = {"images": 6, "classes": dict.fromkeys(classes, 2), "quarantined": {"damaged": 2}, "batches": [batch]}
    files.write_json(folder / "metrics/ingest.json", counts)
    files.write_json(
        folder / "metrics/shard.json",
        {
            "images": {"train": 2, "val": 1, "test": 2, "quarantine": 1},
            "classes": {split: dict.fromkeys(classes, 1) for split in ("train", "val", "test", "quarantine")},
            "quarantined": {},
            "shortfalls": [],
        },
    )
