"""Stage `ingest`: add what is new at the source to the dataset."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from pipeline import files, stage
from pipeline.dataset import ingest, manifest
from pipeline.dataset.sources import open_source
from pipeline.errors import DataError
from pipeline.settings import load

logger = logging.getLogger(__name__)
MANIFEST = Path("data/manifest")
QUARANTINE = Path("data/quarantine")


def main() -> None:
    settings = load(Path("params.yaml"))
    ingest.clear_uncommitted(MANIFEST, QUARANTINE)
    batch = ingest.ingest(
        open_source(settings.ingest.source),
        manifest.read_batches(MANIFEST),
        manifest.read_batches(QUARANTINE),
        limits=ingest.Limits(max_bytes=settings.ingest.max_bytes, max_pixels=settings.ingest.max_pixels),
        processes=settings.execution.processes,
        now=datetime.now(UTC),
    )
    if not batch.empty:
        ingest.write(batch, MANIFEST, QUARANTINE)
    summary = ingest.summary(manifest.read_batches(MANIFEST), manifest.read_batches(QUARANTINE))
    files.write_json(Path("metrics/ingest.json"), summary)
    logger.info(
        "ingest: %d files listed, %d known, %d accepted, %d quarantined",
        batch.listed, batch.known, batch.accepted.num_rows, batch.quarantined.num_rows,
    )  # fmt: skip
    if not summary["images"]:
        raise DataError(
            f"Expected images, but none of {batch.listed} files can be used: {summary['batches'][-1]['quarantined']}.",
            fix="put JPEG, PNG, GIF, BMP, WebP or TIFF images into SOURCE/<class>/",
        )


if __name__ == "__main__":
    stage.run(main)
