"""What a run has left so far, read as it is: a page about a run that failed needs what there is, not what is missing.

A run starts with its parent's outputs checked out of the cache. Metrics, verdict, diagnosis and decision are never
cached, so where they lie this run has written them; the rest counts only if its stage is done in this run.
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
from pipeline.report import contact_sheet
from pipeline.settings import FINAL
from pipeline.stage import DONE

logger = logging.getLogger(__name__)

STAGES = ("ingest", "profile", "validate", "shard", "train", "evaluate", "diagnose", "serve", "gate")
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
    augmentation: tuple[Mapping[str, str], ...]  # as `contact_sheet.strips` gives them
    history: Mapping[str, Any] | None  # of the final model
    evaluation: Mapping[str, Any] | None
    predictions: tuple[Mapping[str, Any], ...]  # of the test images
    diagnosis: Mapping[str, Any] | None
    serving: Mapping[str, Any] | None
    decision: Mapping[str, Any] | None
    promotion: Mapping[str, Any] | None
    quarantine: tuple[Mapping[str, Any], ...]  # all that is in it now, newest batch first


def stage_names(params: Mapping[str, Any]) -> list[str]:
    """In the order in which they run: ingest, …, train@fold-0, …, train@final, …, gate, promote."""
    names = []
    for name in STAGES:
        names += [f"train@{part}" for part in params["train"]["parts"]] if name == "train" else [name]
    return [*names, PROMOTE]


def read(run: Path) -> Evidence:
    params = yaml.safe_load((run / "params.yaml").read_text())
    promotion = _promotion(run / "promotion.json")
    done = [name for name in stage_names(params) if (run / DONE / name).exists()]
    return Evidence(
        run=files.read_json(run / "run.json"),
        params=params,
        live=_json(run / "live.json") or {"version": None, "generation": 0, "path": None, "digest": None},
        done=(*done, PROMOTE) if promotion else tuple(done),
        failure=_json(run / "failure.json"),
        ingest=_json(run / "metrics/ingest.json"),
        profile=_json(run / "metrics/profile.json"),
        verdict=_json(run / "reports/validation/verdict.json"),
        shard=_json(run / "metrics/shard.json"),
        augmentation=tuple(contact_sheet.strips(run / "reports/augmentation")),
        history=_json(run / "models" / FINAL / "history.json") if f"train@{FINAL}" in done else None,
        evaluation=_evaluation(run / "metrics/evaluate.json"),
        predictions=_predictions(run / "data/predictions.parquet") if "evaluate" in done else (),
        diagnosis=_json(run / "reports/diagnosis.json"),
        serving=_json(run / "metrics/serving.json"),
        decision=_decision(run / "decision.json"),
        promotion=promotion,
        quarantine=_quarantine(run / "data/quarantine/current.parquet") if "ingest" in done else (),
    )


def _json(path: Path) -> Any:
    try:
        return files.read_json(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("report: left out %s, which is no JSON (%s)", path, error)
        return None


def _evaluation(path: Path) -> Any:
    """None for one that an earlier version of the stage wrote: most of what the page shows is not in it."""
    found = _json(path)
    if found is not None and "calibration" not in found:
        logger.warning("report: left out %s, which an earlier version wrote; run the stage evaluate again", path)
        return None
    return found


def _decision(path: Path) -> Any:
    found = _json(path)
    return found and {
        "warnings": [],
        "borderline": False,
        "test_uses": None,
        "forms_digest": None,
        "approval": {"required": False, "why": ""},
        **found,
    }


def _promotion(path: Path) -> Any:
    found = _json(path)
    return found and {"approval": None, **found}


def _predictions(path: Path) -> tuple[Mapping[str, Any], ...]:
    if not path.exists():
        return ()
    columns = ["image_id", "uri", "label", "predicted", "confidence", "live_predicted", "source"]
    table = pq.read_table(path, columns=columns)
    return tuple(predictions.of_test(table).to_pylist())


def _quarantine(path: Path) -> tuple[Mapping[str, Any], ...]:
    table = pq.read_table(path, columns=["batch", "uri", "label", "reason", "detail"])
    return tuple(table.sort_by([("batch", "descending"), ("uri", "ascending")]).to_pylist())
