"""Stage `shard`: decide the splits of new images, describe them and write the TFRecords of batches that changed."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline import files, runtime, stage, wording
from pipeline.dataset import (
    assignment,
    duplicate_links,
    manifest,
    shard_index,
    shard_rows,
    shards,
    split_summary,
    splits,
)
from pipeline.dataset.images import JPEG_QUALITY
from pipeline.profiling import batches as features
from pipeline.settings import load

logger = logging.getLogger(__name__)
SPLITS = Path("data/splits")
SHARDS = Path("data/shards")
CONTACT_SHEET = Path("reports/augmentation")


def main() -> None:
    with runtime.quiet_imports():
        from pipeline.dataset import copies
        from pipeline.profiling import statistics
        from pipeline.training import contact_sheet

    settings = load(Path("params.yaml"))
    batches = manifest.read_batches(Path("data/manifest"))
    rows = manifest.current(batches)
    measured = features.current(batches, manifest.read_batches(Path("data/features")))
    links = duplicate_links.read(Path("data/duplicates"))

    SPLITS.mkdir(parents=True, exist_ok=True)
    files.clear_temporaries(SPLITS)
    shares = splits.Shares(
        settings.shard.salt, settings.shard.val_share, settings.shard.test_share, settings.shard.min_per_class
    )
    images, gone = assignment.images_of(rows), assignment.gone(batches)
    placed = assignment.read_placed(SPLITS, shares.salt)
    new = splits.place(images, links.pairs, placed, shares, links.cluster, gone)
    count = assignment.record(SPLITS / f"{list(batches)[-1]}.parquet", new, shares.salt)
    recorded = placed | new
    places = recorded | splits.withheld(images, links.pairs, recorded, links.cluster, gone)
    groups = splits.current_groups(images, links.pairs, places, links.cluster)
    classes = assignment.class_names(rows["label"].to_pylist(), shard_index.read_index(SHARDS).classes)
    table = assignment.assign(rows, places, groups, classes, settings.train.folds)
    assignment.check_trainable(table)
    table = assignment.with_copies(table, settings.augment)

    layout = shards.layout(settings.shard)
    index = shards.write(
        SHARDS,
        shard_rows.rows(table, rows, measured, {key: place.group for key, place in recorded.items()}, layout),
        classes,
        layout,
        threads=settings.execution.processes,
        recipe=copies.recipe(settings.augment, JPEG_QUALITY),
        alter=copies.maker(settings.augment, JPEG_QUALITY),
    )
    files.write_table(Path("data/assignment.parquet"), table)
    split_of = dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    files.write_bytes(Path("data/split_statistics.pb"), statistics.to_bytes(statistics.by_split(measured, split_of)))
    contact_sheet.write(CONTACT_SHEET, contact_sheet.choose(table, rows), settings.augment, settings.train)
    summary = split_summary.summary(table, shares, new)
    files.write_json(Path("metrics/shard.json"), summary)
    logger.info("shard: %d new images split, %s, %d files", count, summary["images"], len(index.files))
    if summary["shortfalls"]:
        logger.warning("shard: %s (all: refit split show)", wording.some(summary["shortfalls"], 3))


if __name__ == "__main__":
    stage.run(main)
