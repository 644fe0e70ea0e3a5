"""What a run has left so far, read as it is: a page about a run that failed needs what there is, not what is missing.

A run starts with its parent's outputs checked out of the cache, so a cached file proves nothing about this run. Each
stage also writes something that is never cached; only where that lies is the stage's output taken for this run's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from pipeline import files
from pipeline.evaluation import predictions
from pipeline.settings import FINAL

logger = logging.getLogger(__name__)

# Stage to the uncached output that it leaves; train has one for each part.
MARKERS = {
    "ingest": "metrics/ingest.json",
    "profile": "metrics/profile.json",
    "validate": "reports/validation/verdict.json",
    "shard": "metrics/shard.json",
    "train": "logs/{part}",
    "evaluate": "metrics/evaluate.json",
    "diagnose": "reports/diagnosis.json",
    "gate": "decision.json",
}
PROMOTE = "promote"


@dataclass(frozen=True)
class Evidence:
    """None, or empty, where the run has not got that far. Contents: docs/formats.md."""

    run: Mapping[str, Any]
    params: Mapping[str, Any]
    live: Mapping[str, Any]
    done: tuple[str, ...]  # stages, as in `stage_names`
    failure: Mapping[str, Any] | None
    ingest: Mapping[str, Any] | None
    profile: Mapping[str, Any] | None
    verdict: Mapping[str, Any] | None
    shard: Mapping[str, Any] | None
    history: Mapping[str, Any] | None  # of the final model
    evaluation: Mapping[str, Any] | None
    predictions: tuple[Mapping[str, Any], ...]  # of the test images
    diagnosis: Mapping[str, Any] | None
    decision: Mapping[str, Any] | None
    promotion: Mapping[str, Any] | None
    quarantine: tuple[Mapping[str, Any], ...]  # newest batch first


def stage_names(params: Mapping[str, Any]) -> list[str]:
    """In the order in which they run: ingest, …, train@fold-0, …, train@final, …, gate, promote."""
    names = []
    for name in MARKERS:
        names += [f"train@{part}" for part in params["train"]["parts"]] if name == "train" else [name]
    return [*names, PROMOTE]


def read(run: Path) -> Evidence:
    params = yaml.safe_load((run / "params.yaml").read_text())
    promotion = _json(run / "promotion.json")
    done = [name for name in stage_names(params) if name != PROMOTE and _is_done(run, name)]

    def of(stage: str, path: str) -> Any:
        return _json(run / path) if stage in done else None

    return Evidence(
        run=files.read_json(run / "run.json"),
        params=params,
        live=_json(run / "live.json") or {"version": None, "generation": 0, "path": None, "digest": None},
        done=(*done, PROMOTE) if promotion else tuple(done),
        failure=_json(run / "failure.json"),
        ingest=of("ingest", MARKERS["ingest"]),
        profile=of("profile", MARKERS["profile"]),
        verdict=of("validate", MARKERS["validate"]),
        shard=of("shard", MARKERS["shard"]),
        history=of(f"train@{FINAL}", _history(FINAL)),
        evaluation=of("evaluate", MARKERS["evaluate"]),
        predictions=_predictions(run / "data/predictions.parquet") if "evaluate" in done else (),
        diagnosis=of("diagnose", MARKERS["diagnose"]),
        decision=of("gate", MARKERS["gate"]),
        promotion=promotion,
        quarantine=_quarantine(run / "data/quarantine") if "ingest" in done else (),
    )


def _is_done(run: Path, stage: str) -> bool:
    name, _, part = stage.partition("@")
    # Logs are written all along a training, its history at the end.
    return (run / MARKERS[name].format(part=part)).exists() and (not part or (run / _history(part)).exists())


def _history(part: str) -> str:
    return f"models/{part}/history.json"


def _json(path: Path) -> Any:
    try:
        return files.read_json(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("report: left out %s, which is no JSON (%s)", path, error)
        return None


def _predictions(path: Path) -> tuple[Mapping[str, Any], ...]:
    if not path.exists():
        return ()
    columns = ["image_id", "uri", "label", "predicted", "confidence", "live_predicted", "source"]
    table = pq.read_table(path, columns=columns)
    return tuple(predictions.of_test(table).to_pylist())


def _quarantine(folder: Path) -> tuple[Mapping[str, Any], ...]:
    paths = sorted(folder.glob("[0-9]*.parquet"), reverse=True)
    columns = ["batch", "uri", "label", "reason", "detail"]
    return tuple(row for path in paths for row in pq.read_table(path, columns=columns).to_pylist())
