"""validate: judge the data before anything is trained on it."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import files, runtime, settings, stage
from pipeline.dataset import manifest, near_duplicates
from pipeline.profiling import batches

logger = logging.getLogger(__name__)


def main() -> None:
    with runtime.quiet_imports():
        from pipeline.validation.validate import validate

    params = settings.load(Path("params.yaml"))
    live = files.read_json(Path("live.json"))["path"]
    measured = manifest.read_batches(Path("data/features"))
    measured = manifest.read_batches(Path("data/features"))
    verdict = validate(
        batches.current(manifest.read_batches(Path("data/manifest")), measured),
        Path("data/statistics/stats.pb"),
        schema=Path("schema.pbtxt"),
        quarantine=pq.read_table("data/quarantine/current.parquet"),
        near_duplicates=near_duplicates.read(Path("data/duplicates")).pairs,
        suspects=pq.read_table("data/suspects.parquet"),
        training=None if live is None else batches.trained_on(pq.read_table(Path(live, "training.parquet")), measured),
        ingest=files.read_json(Path("metrics/ingest.json")),
        profile=files.read_json(Path("metrics/profile.json")),
        limits=params.validate_,
        folds=params.train.folds,
        max_pixels=params.ingest.max_pixels,
        evidence=Path("reports/validation"),
    )
    for finding in verdict.findings:
        logger.info("%s: %s. Fix: %s", finding.severity, finding.message, finding.fix)
    verdict.raise_if_blocked()
    logger.info("validate: %s, %d findings", verdict.worst, len(verdict.findings))


if __name__ == "__main__":
    stage.run(main)
