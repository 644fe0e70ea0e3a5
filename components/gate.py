"""Stage `gate`: decide on the promotion. Exit status 0 whether it promotes or refuses."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline import files, stage
from pipeline.promotion import gate
from pipeline.promotion.registry import MODEL
from pipeline.settings import load

logger = logging.getLogger(__name__)


def main() -> None:
    settings = load(Path("params.yaml"))
    live = files.read_json(Path("live.json"))
    promote, summary, rules = gate.decide(
        files.read_json(Path("metrics/evaluate.json")),
        files.read_json(Path("reports/validation/verdict.json")),
        live,
        settings.gate,
    )
    decision = {
        "promote": promote,
        "summary": summary,
        "rules": gate.as_json(rules),
        "model_digest": files.sha256(Path("models/final") / MODEL),
        "live_version": live["version"],
        "live_generation": live["generation"],
        "data_digest": files.sha256(Path("data/assignment.parquet")),
        "code_digest": files.sha256_tree(Path("pipeline")),
    }
    files.write_json(Path("decision.json"), decision)
    logger.info("gate: %s", summary)


if __name__ == "__main__":
    stage.run(main)
