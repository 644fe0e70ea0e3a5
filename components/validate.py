"""validate: judge the data before anything is trained on it."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline import files, runtime, settings, stage
from pipeline.dataset import manifest
from pipeline.profiling import batches

logger = logging.getLogger(__name__)


def main() -> None:
    with runtime.quiet_imports():
        from pipeline.validation.validate import validate

    params = settings.load(Path("params.yaml"))
    verdict = validate(
        batches.current(manifest.read_batches(Path("data/manifest")), manifest.read_batches(Path("data/features"))),
        Path("data/statistics/stats.pb"),
        ingest=files.read_json(Path("metrics/ingest.json")),
        profile=files.read_json(Path("metrics/profile.json")),
        limits=params.validate_,
        folds=params.train.folds,
        evidence=Path("reports/validation"),
    )
    for finding in verdict.findings:
        logger.info("%s: %s. Fix: %s", finding.severity, finding.message, finding.fix)
    verdict.raise_if_blocked()
    logger.info("validate: %s, %d findings", verdict.worst, len(verdict.findings))


if __name__ == "__main__":
    stage.run(main)
