"""card.json: all that a reader of the registry needs to know of a version, gathered from its run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pipeline import files
from pipeline.promotion.limits import limits


def collect(run: Path) -> dict[str, Any]:
    """The content of card.json (docs/formats.md). The same run gives the same card."""
    history = files.read_json(run / "models/final/history.json")
    metrics = files.read_json(run / "metrics/evaluate.json")
    decision = files.read_json(run / "decision.json")
    serving = _optional(run / "metrics/serving.json")
    return {
        "run_id": run.name,
        "classes": history["classes"],
        "images": history["images"],
        **{key: history[key] for key in ("backbone", "weights", "input_size", "filters", "recipe", "kept_phase")},
        "environment": history["environment"],
        "test": metrics["test"],
        "cross_validation": metrics["cross_validation"],
        "metrics": metrics_of(metrics["test"]),
        "slices": metrics.get("slices") or [],
        "serving": serving,
        "data": _data(run, decision),
        "decision": decision,
        "limits": limits(metrics, serving, decision, history["classes"]),
        "created_at": _begun(run),
    }


def metrics_of(test: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The figures of metrics/evaluate.json's `test`, each with its interval: {name: {"value", "low", "high"}}."""
    found = {
        name: {"value": value, "low": test.get(f"{name}_low"), "high": test.get(f"{name}_high")}
        for name, value in test.items()
        if name != "images" and not name.endswith(("_low", "_high")) and isinstance(value, float | int | None)
    }
    for count, row in (test.get("top_k") or {}).items():
        found[f"top_{count}_accuracy"] = {key: row.get(key) for key in ("value", "low", "high")}
    return found


def _data(run: Path, decision: Mapping[str, Any]) -> dict[str, Any]:
    ingest = _optional(run / "metrics/ingest.json") or {}
    shard = _optional(run / "metrics/shard.json") or {}
    params = yaml.safe_load((run / "params.yaml").read_text())
    return {
        "digest": decision["data_digest"],
        "source": params["ingest"]["source"],
        "images": ingest.get("images"),
        "classes": ingest.get("classes", {}),
        "quarantined": ingest.get("quarantined", {}),
        "batches": [
            {key: batch.get(key) for key in ("batch", "accepted", "removed")} for batch in ingest.get("batches", [])
        ],
        "splits": shard.get("images", {}),
        "split_classes": shard.get("classes", {}),
    }


def _begun(run: Path) -> str:
    """When the run began, so that a promotion that is repeated writes the same card again."""
    record = _optional(run / "run.json")
    return record["created_at"] if record else datetime.now(UTC).isoformat(timespec="seconds")


def _optional(path: Path) -> Any:
    return files.read_json(path) if path.exists() else None
