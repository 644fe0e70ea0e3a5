"""Stage `evaluate`: measure the candidate on its folds and on the held-out test set, next to the live model."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow.parquet as pq
from pyarrow import csv

from pipeline import files, runtime, stage
from pipeline.dataset import manifest
from pipeline.evaluation.predictions import confusion_pairs
from pipeline.settings import load

logger = logging.getLogger(__name__)


def main() -> None:
    runtime.prepare()
    from pipeline.evaluation import evaluating  # imports TensorFlow, which reads its log level then

    settings = load(Path("params.yaml"))
    current = manifest.current(manifest.read_batches(Path("data/manifest")))
    candidate = evaluating.Candidate(
        models=Path("models"),
        shards=Path("data/shards"),
        assignment=pq.read_table("data/assignment.parquet"),
        uris=dict(zip(current["image_id"].to_pylist(), current["uri"].to_pylist(), strict=True)),
        folds=settings.train.folds,
    )
    live = evaluating.read_live(files.read_json(Path("live.json")))
    predictions, metrics = evaluating.evaluate(candidate, live, settings.evaluate)
    files.write_table(Path("data/predictions.parquet"), predictions)
    with files.replacing(Path("plots/confusion.csv")) as temporary:
        csv.write_csv(confusion_pairs(predictions), temporary)
    files.write_json(Path("metrics/evaluate.json"), metrics)
    test = metrics["test"]
    score = test["balanced_accuracy"]
    shown = "unknown" if score is None else f"{score:.3f}"
    logger.info("evaluate: %d test images, balanced accuracy %s", test["images"], shown)


if __name__ == "__main__":
    stage.run(main)
