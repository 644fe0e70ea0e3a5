"""Stage `shard`: decide the splits of new images, describe them and write the TFRecords of batches that changed."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from pipeline import files, runtime, stage, wording
from pipeline.dataset import assignment, manifest, near_duplicates, split_summary, splits
from pipeline.profiling import batches as features
from pipeline.settings import load

logger = logging.getLogger(__name__)
SPLITS = Path("data/splits")
SHARDS = Path("data/shards")


def main() -> None:
    with runtime.quiet_imports():
        from pipeline.dataset import records
        from pipeline.profiling import statistics

    settings = load(Path("params.yaml"))
    batches = manifest.read_batches(Path("data/manifest"))
    rows = manifest.current(batches)
    measured = features.current(batches, manifest.read_batches(Path("data/features")))
    links = near_duplicates.read(Path("data/duplicates"))

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
    classes = assignment.class_names(rows["label"].to_pylist(), records.read_index(SHARDS).classes)
    table = assignment.assign(rows, places, groups, classes, settings.train.folds)
    assignment.check_trainable(table)

    written: dict[str, list[records.Row]] = defaultdict(list)
    for row in table.to_pylist():
        if row["split"] != splits.QUARANTINE:
            written[row["batch"]].append(
                # The group that it was placed with: today's may change, and with it files that need not.
                records.Row(row["image_id"], row["class"], row["label"], recorded[row["image_id"]].group, row["split"])
            )
    index = records.write(SHARDS, written, classes, target_bytes=settings.shard.target_bytes)
    files.write_table(Path("data/assignment.parquet"), table)
    split_of = dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    files.write_bytes(Path("data/split_statistics.pb"), statistics.to_bytes(statistics.by_split(measured, split_of)))
    summary = split_summary.summary(table, shares, new)
    files.write_json(Path("metrics/shard.json"), summary)
    logger.info("shard: %d new images split, %s, %d files", count, summary["images"], len(index.files))
    if summary["shortfalls"]:
        logger.warning("shard: %s (all: refit split show)", wording.some(summary["shortfalls"], 3))


if __name__ == "__main__":
    stage.run(main)
