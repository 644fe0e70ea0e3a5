"""Stage `ingest`: bring the dataset up to date with the source."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from pipeline import files, stage
from pipeline.errors import DataError
from pipeline.ingestion import history, ingest, journal, releases
from pipeline.ingestion.answers import Limits
from pipeline.settings import load
from pipeline.sources.source import open_source

logger = logging.getLogger(__name__)
MANIFEST = Path("data/manifest")
QUARANTINE = Path("data/quarantine")


def main() -> None:
    settings = load(Path("params.yaml"))
    params = settings.ingest
    source = open_source(params.source, labels=params.labels, verify_etag=params.verify_etag)
    limits = Limits(max_bytes=params.max_bytes, max_pixels=params.max_pixels, min_side=params.min_side)
    ingest.clear_uncommitted(MANIFEST, QUARANTINE)
    batch = ingest.ingest(
        source,
        history.read(MANIFEST, QUARANTINE),
        released=releases.read(releases.path(settings.promote.model)),
        limits=limits,
        max_removed_share=params.max_removed_share,
        processes=settings.execution.processes,
        now=datetime.now(UTC),
    )
    ingest.write(batch, MANIFEST, QUARANTINE)
    files.write_table(Path("data/attributes.parquet"), batch.attributes)
    journal.replace(journal.path(source.base), batch.touched, limits)
    summary = ingest.summary(history.read(MANIFEST, QUARANTINE))
    files.write_json(Path("metrics/ingest.json"), summary)
    logger.info(
        "ingest: %d files listed, %d known, %d accepted, %d removed, %d newly quarantined; in quarantine: %s",
        batch.listed, batch.known, batch.accepted, batch.removed, batch.quarantined.num_rows,
        ", ".join(f"{count} {reason}" for reason, count in summary["quarantined"].items()) or "none",
    )  # fmt: skip
    if not summary["images"]:
        raise DataError(
            f"Expected images, but none of {batch.listed} files can be used: {summary['quarantined']}.",
            fix="put JPEG, PNG, GIF, BMP, WebP or TIFF images into SOURCE/<class>/; refit quarantine list says more",
        )


if __name__ == "__main__":
    stage.run(main)
