"""Evidence that passes every rule, each with some room, and ways to change one figure of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from pipeline.promotion.gate.evidence import Evidence
from pipeline.promotion.gate.uses import Uses
from pipeline.settings import Gate, load

SETTINGS: Gate = load(Path(__file__).parents[4] / "params.yaml").gate.model_copy(
    update={
        "min_accuracy": 0.7,
        "min_balanced_accuracy": 0.6,
        "min_test_images": 50,
        "min_new_class_recall": 0.25,
        "max_calibration_error": 0.1,
        "max_fold_spread": 0.2,
        "max_leaked_images": 0,
        "max_latency_ms": 50.0,
        "max_size_mb": 20.0,
        "max_test_uses": 3,
        "min_gain": -0.01,
        "min_gain_low": -0.05,
        "max_class_loss": 0.1,
        "max_slice_loss": 0.2,
        "allow_dropped_classes": False,
    }
)
FIRST = {"version": None, "generation": 0, "path": None, "digest": None}
SECOND = {"version": 4, "generation": 6, "path": "somewhere", "digest": "0"}


def metrics() -> dict[str, Any]:
    return {
        "test": {
            "images": 60,
            "accuracy": 0.8,
            "accuracy_low": 0.71,
            "accuracy_high": 0.88,
            "balanced_accuracy": 0.75,
            "balanced_accuracy_low": 0.65,
            "balanced_accuracy_high": 0.83,
            "calibration_error_low": 0.02,
            "calibration_error_high": 0.08,
            "per_class": {
                "cat": {"support": 30, "recall": 0.8, "recall_high": 0.9},
                "dog": {"support": 30, "recall": 0.7, "recall_high": 0.85},
            },
        },
        "calibration": {"error": 0.05, "noise": 0.04},
        "cross_validation": {"folds": [{"balanced_accuracy": 0.7}, {"balanced_accuracy": 0.8}]},
        "leakage": {"groups": 0, "images": 0, "folds": 0, "examples": []},
        "slices": [
            {"by": "label", "value": "dog", "compared": 28, "difference_high_all": -0.9},  # left to the classes
            {"by": "brightness", "value": "dark", "compared": 20, "difference_high_all": -0.1},
            {"by": "size", "value": "small", "compared": None, "difference_high_all": None},
        ],
        "live": {
            "images": 55,
            "excluded": 5,
            "difference": 0.03,
            "difference_low": -0.005,
            "difference_high": 0.07,
            "mcnemar": {"only_candidate": 5, "only_live": 3, "p_value": 0.727},
            "per_class": {
                "cat": _compared(27, 0.8, 0.75, 0.2),
                "dog": _compared(28, 0.7, 0.69, -0.05),
            },
            "new_classes": [],
            "dropped_classes": [],
        },
    }


def _compared(support: int, candidate: float, live: float, high: float) -> dict[str, Any]:
    return {"support": support, "candidate_recall": candidate, "live_recall": live, "difference_high_all": high}


def serving() -> dict[str, Any]:
    return {
        "model_digest": "d",
        "fresh_process": {
            "status": "passed",
            "reason": None,
            "images": 32,
            "tolerance": 1e-4,
            "max_difference": 2e-6,
            "bytes_difference": 3e-6,
            "same_answers": True,
            "same_classes": True,
        },
        "container": {"status": "passed", "image": "serving:1", "tolerance": 1e-4, "max_difference": 1e-6},
        "latency": {"cpu": {"1": {"p50_ms": 20.0, "p99_ms": 30.0}}, "gpu": None},
        "size": {"saved_model_bytes": 15_000_000, "keras_bytes": 14_000_000, "parameters": 3_000_000},
        "input_contract": {"passed": True, "detail": "Known images arrive as they should.", "scaling": "tf"},
    }


def evidence(live: dict[str, Any] = SECOND, **changes: Any) -> Evidence:
    """`changes` replaces whole fields."""
    fields: dict[str, Any] = {
        "metrics": metrics() if live["version"] else metrics() | {"live": None},
        "verdict": {"verdict": "pass"},
        "serving": serving(),
        "live": live,
        "model_digest": "d",
        "taught": frozenset({"cat", "dog"}),
        "tested": frozenset({"cat", "dog"}),
        "uses": Uses(0, 60, 60),
    }
    return Evidence(**fields | changes)


MISSING = object()


def changed(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with the value at `path` (keys and numbers between slashes) replaced, or removed for `MISSING`."""
    result = copy.deepcopy(content)
    *sections, last = path.split("/")
    section: Any = result
    for name in sections:
        section = section[int(name)] if isinstance(section, list) else section[name]
    if value is MISSING:
        del section[last]
    else:
        section[last] = value
    return result
