"""Stage `shard`: decide the splits of new images and write the TFRecords of batches that changed."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from pipeline import files, runtime, stage
from pipeline.dataset import assignment, manifest, splits
from pipeline.settings import load

logger = logging.getLogger(__name__)
SPLITS = Path("data/splits")
SHARDS = Path("data/shards")


def main() -> None:
    runtime.prepare()
    from pipeline.dataset import records  # imports TensorFlow, which reads its log level then

    settings = load(Path("params.yaml"))
    batches = manifest.read_batches(Path("data/manifest"))
    rows = manifest.current(batches)
    features = manifest.read_batches(Path("data/features"))

    SPLITS.mkdir(parents=True, exist_ok=True)
    files.clear_temporaries(SPLITS)
    salt = settings.shard.salt
    placed = assignment.read_placed(SPLITS, salt)
    new = splits.place(
        assignment.images_of(rows),
        assignment.near_duplicates(
            manifest.concatenate(features, next(iter(features.values())).schema),
            bits=settings.profile.near_duplicate_bits,
            error=settings.profile.near_duplicate_error,
        ),
        placed,
        splits.Shares(salt, settings.shard.val_share, settings.shard.test_share, settings.shard.min_per_class),
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
    index = records.write(
        SHARDS, written, classes, target_bytes=settings.shard.target_bytes, max_pixels=settings.ingest.max_pixels
    )
    files.write_table(Path("data/assignment.parquet"), table)
    summary = assignment.summary(table)
    files.write_json(Path("metrics/shard.json"), summary)
    logger.info("shard: %d new images split, %s, %d files", len(new), summary["images"], len(index.files))


if __name__ == "__main__":
    stage.run(main)
