"""Acts on the world: publishes the candidate and moves the live pointer, if the decision says so."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import files
from pipeline.dataset import manifest
from pipeline.errors import PromotionRefused
from pipeline.profiling import batches
from pipeline.promotion.registry import MODEL, Registry


def promote(run: Path, registry: Registry) -> dict[str, Any]:
    """Carry out `decision.json` of a run; writes and returns its promotion.json.

    Raises `PromotionRefused` if there is no decision, the decision is about another model, or the live model is
    no longer the one that the candidate was compared with. Repeating a promotion changes nothing.
    """
    if not (run / "decision.json").exists():
        raise PromotionRefused("This run has no decision.", fix="run its gate stage first")
    decision = files.read_json(run / "decision.json")
    if not decision["promote"]:
        return _record(run, False, None, None, decision["summary"])
    digest = files.sha256(run / "models/final" / MODEL)
    if digest != decision["model_digest"]:
        raise PromotionRefused(
            f"The decision is about the model {decision['model_digest'][:12]}, models/final holds {digest[:12]}.",
            fix="run the stages evaluate and gate again",
        )
    live = registry.live()
    if live.digest == digest:
        return _record(run, True, live.version, live.generation, decision["summary"])
    with tempfile.TemporaryDirectory() as scratch:
        version = registry.publish(_content(run, Path(scratch)))
    live = registry.move_live(
        version, expected_generation=decision["live_generation"], reason=f"run {run.name}: {decision['summary']}"
    )
    return _record(run, True, live.version, live.generation, decision["summary"])


def _record(run: Path, promoted: bool, version: int | None, generation: int | None, reason: str) -> dict[str, Any]:
    promotion = {
        "promoted": promoted,
        "version": version,
        "generation": generation,
        "reason": reason,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    files.write_json(run / "promotion.json", promotion)
    return promotion


def _content(run: Path, scratch: Path) -> dict[str, Path]:
    files.write_json(scratch / "card.json", _card(run))
    files.write_table(scratch / "training.parquet", _training_rows(run))
    saved_model = run / "models/final/saved_model"
    others = [run / "models/final" / name for name in ("card.md", "model.tflite", "model.onnx")]
    return {
        MODEL: run / "models/final" / MODEL,
        **{path.name: path for path in others if path.exists()},
        "card.json": scratch / "card.json",
        "training.parquet": scratch / "training.parquet",
        **{name: run / name for name in ("decision.json", "params.yaml", "dvc.lock")},
        **{path.name: path for path in sorted(saved_model.iterdir())},
    }


def _training_rows(run: Path) -> pa.Table:
    """Feature rows of the images that the model learned from or was selected by."""
    assignment = pq.read_table(run / "data/assignment.parquet")
    used = assignment.filter(pc.is_in(assignment["split"], pa.array(["train", "val"])))["image_id"]
    features = batches.current(
        manifest.read_batches(run / "data/manifest"), manifest.read_batches(run / "data/features")
    )
    return features.filter(pc.is_in(features["image_id"], used.combine_chunks()))


def _card(run: Path) -> dict[str, Any]:
    history = files.read_json(run / "models/final/history.json")
    metrics = files.read_json(run / "metrics/evaluate.json")
    return {
        "run_id": run.name,
        "classes": history["classes"],
        "images": history["images"],
        **{key: history[key] for key in ("backbone", "weights", "input_size", "filters", "recipe", "kept_phase")},
        "environment": history["environment"],
        "test": metrics["test"],
        "cross_validation": metrics["cross_validation"],
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
