"""profile: measure every new image, compare with the live model's training data and with ImageNet."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import files, settings, stage
from pipeline.dataset import duplicate_links, manifest, near_duplicates
from pipeline.errors import DataError
from pipeline.profiling import batches, embeddings, labels, summary
from pipeline.profiling.imagenet import gap, reference, space

logger = logging.getLogger(__name__)
FEATURES = Path("data/features")
EMBEDDINGS = Path("data/embeddings")
DUPLICATES = Path("data/duplicates")


def main() -> None:
    params = settings.load(Path("params.yaml"))
    options, processes = params.profile, params.execution.processes
    rows = manifest.read_batches(Path("data/manifest"))
    batches.update(FEATURES, rows, processes)
    measured = manifest.read_batches(FEATURES)
    table = batches.current(rows, measured)
    if not table.num_rows:
        raise DataError(
            "Expected images to profile, every one is in quarantine.", fix="see the reasons in data/quarantine"
        )
    rules = near_duplicates.Rules(
        bits=options.near_duplicate_bits,
        error=options.near_duplicate_error,
        detail=options.near_duplicate_detail,
        searched=options.near_duplicate_searched,
    )
    near_duplicates.update(DUPLICATES, measured, rules, processes)
    pairs = duplicate_links.read(DUPLICATES).pairs
    embeddings.update(EMBEDDINGS, rows, limit=options.embedded_images, processes=processes)
    embedded = embeddings.read(EMBEDDINGS, table["image_id"].to_pylist())
    cluster = near_duplicates.clusters(table["image_id"].to_pylist(), pairs)
    suspects = labels.suspects(table, embedded, cluster)
    imagenet = reference.load()
    live = files.read_json(Path("live.json"))["path"]
    content = summary.summarise(
        batches.by_arrival(table, rows),
        None if live is None else batches.trained_on(pq.read_table(Path(live, "training.parquet")), measured),
        imagenet,
        pairs=pairs,
        cluster=cluster,
        searched=near_duplicates.searched(measured, rules.searched),
        embedded=len(embedded),
        domain_gap=gap.measure(table, embedded, imagenet, space.load()),
        suspects=suspects,
        alpha=options.drift_alpha,
        min_distance=options.drift_min_distance,
    )
    files.write_table(
        Path("data/suspects.parquet"), labels.SCHEMA.empty_table() if suspects is None else suspects.table
    )
    files.write_json(Path("metrics/profile.json"), content)
    for sentence in content["imagenet_gap"]:
        logger.info("profile: unlike ImageNet: %s", sentence)


if __name__ == "__main__":
    stage.run(main)
