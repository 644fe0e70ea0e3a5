"""Stage `gate`: decide on the promotion. Exit status 0 whether it promotes or refuses."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import files, stage
from pipeline.promotion.gate import deciding, uses
from pipeline.promotion.gate.evidence import Evidence
from pipeline.promotion.registry import MODEL
from pipeline.settings import load

logger = logging.getLogger(__name__)

DECISIONS = Path("data/decisions")


def main() -> None:
    settings = load(Path("params.yaml"))
    live = files.read_json(Path("live.json"))
    images = pq.read_table("data/assignment.parquet", columns=["image_id", "label", "split"]).to_pylist()
    test = {image["image_id"]: image["label"] for image in images if image["split"] == "test"}
    run_id = Path.cwd().name
    evidence = Evidence(
        metrics=files.read_json(Path("metrics/evaluate.json")),
        verdict=files.read_json(Path("reports/validation/verdict.json")),
        serving=files.read_json(Path("metrics/serving.json")),
        live=live,
        model_digest=files.sha256(Path("models/final") / MODEL),
        taught=frozenset(image["label"] for image in images if image["split"] == "train"),
        tested=frozenset(test.values()),
        uses=uses.count(DECISIONS, run_id, test),
    )
    decision = deciding.decide(evidence, settings.gate)
    uses.record(DECISIONS, run_id, test)
    bound = {
        "model_digest": evidence.model_digest,
        "forms_digest": files.sha256_tree(Path("models/final")),
        "live_version": live["version"],
        "live_generation": live["generation"],
        "data_digest": files.sha256(Path("data/assignment.parquet")),
        "code_digest": files.sha256_tree(Path("pipeline")),
        "test_uses": asdict(evidence.uses),
    }
    files.write_json(Path("decision.json"), decision.as_json() | bound)
    for warning in decision.warnings:
        logger.warning("gate: %s", warning)
    logger.info("gate: %s", decision.summary)


if __name__ == "__main__":
    stage.run(main)
