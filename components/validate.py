"""validate: describe the data and judge them before anything is trained on them."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import files, runtime, settings, stage
from pipeline.dataset import duplicate_links, manifest
from pipeline.profiling import batches, drift

logger = logging.getLogger(__name__)
STATISTICS = Path("data/statistics")


def main() -> None:
    with runtime.quiet_imports():
        from pipeline.profiling import statistics
        from pipeline.validation.validate import validate

    params = settings.load(Path("params.yaml"))
    live = files.read_json(Path("live.json"))["path"]
    measured = manifest.read_batches(Path("data/features"))
    rows = manifest.read_batches(Path("data/manifest"))
    table = batches.current(rows, measured)
    training = None if live is None else batches.trained_on(pq.read_table(Path(live, "training.parquet")), measured)
    files.write_bytes(STATISTICS / "stats.pb", statistics.to_bytes(statistics.compute(table)))
    files.write_table(STATISTICS / "by_label.parquet", statistics.by_label(table))
    verdict = validate(
        table,
        STATISTICS / "stats.pb",
        schema=Path("schema.pbtxt"),
        quarantine=pq.read_table("data/quarantine/current.parquet"),
        near_duplicates=duplicate_links.read(Path("data/duplicates")).pairs,
        suspects=pq.read_table("data/suspects.parquet"),
        training=training,
        new=table if training is None else drift.new_rows(batches.by_arrival(table, rows), training),
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
