"""Stage `shard`: decide the splits of new images, describe them and write the TFRecords of batches that changed."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from pipeline import files, runtime, stage
from pipeline.dataset import assignment, manifest, near_duplicates, splits
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
    salt = settings.shard.salt
    placed = assignment.read_placed(SPLITS, salt)
    new = splits.place(
        assignment.images_of(rows),
        links.pairs,
        placed,
        splits.Shares(salt, settings.shard.val_share, settings.shard.test_share, settings.shard.min_per_class),
        links.cluster,
    )
    if new:
        files.write_table(SPLITS / f"{list(batches)[-1]}.parquet", assignment.placed_table(new, salt))
    classes = assignment.class_names(rows["label"].to_pylist(), records.read_index(SHARDS).classes)
    table = assignment.assign(rows, {**placed, **new}, classes, settings.train.folds)
    assignment.check_trainable(table)

    written: dict[str, list[records.Row]] = defaultdict(list)
    for row in table.to_pylist():
        if row["split"] != splits.QUARANTINE:
            written[row["batch"]].append(
                records.Row(row["image_id"], row["class"], row["label"], row["group"], row["split"])
            )
    index = records.write(SHARDS, written, classes, target_bytes=settings.shard.target_bytes)
    files.write_table(Path("data/assignment.parquet"), table)
    split_of = dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    files.write_bytes(Path("data/split_statistics.pb"), statistics.to_bytes(statistics.by_split(measured, split_of)))
    summary = assignment.summary(table)
    files.write_json(Path("metrics/shard.json"), summary)
    logger.info("shard: %d new images split, %s, %d files", len(new), summary["images"], len(index.files))


if __name__ == "__main__":
    stage.run(main)
