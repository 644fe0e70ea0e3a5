"""Stage `evaluate`: measure the candidate on its folds and on the held-out test set, next to the live model."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from pipeline import files, runtime, stage
from pipeline.dataset import duplicate_links, manifest
from pipeline.evaluation import predictions as tables
from pipeline.settings import load

logger = logging.getLogger(__name__)
DATA = Path("data")


def main() -> None:
    runtime.prepare()
    from pipeline.evaluation import evaluating  # imports TensorFlow, which reads its log level then

    settings = load(Path("params.yaml"))
    measured = [pq.read_table(path, columns=[*evaluating.FEATURES]) for path in manifest.batch_files(DATA / "features")]
    candidate = evaluating.Candidate(
        models=Path("models"),
        shards=DATA / "shards",
        manifest=manifest.current(manifest.read_batches(DATA / "manifest")),
        assignment=pq.read_table(DATA / "assignment.parquet"),
        features=pa.concat_tables(measured),
        attributes=pq.read_table(DATA / "attributes.parquet"),
        links=duplicate_links.read(DATA / "duplicates"),
        folds=settings.train.folds,
    )
    live = evaluating.read_live(files.read_json(Path("live.json")))
    predictions, metrics = evaluating.evaluate(candidate, live, settings.evaluate)
    files.write_table(DATA / "predictions.parquet", predictions)
    plots = {
        "confusion": tables.confusion_pairs(predictions),
        "reliability": tables.reliability(metrics["calibration"]),
        "recall": tables.recalls(metrics["test"]["per_class"]),
    }
    for name, plot in plots.items():
        with files.replacing(Path(f"plots/{name}.csv")) as temporary:
            csv.write_csv(plot, temporary)
    files.write_json(Path("metrics/evaluate.json"), metrics)
    test = metrics["test"]
    score = test["balanced_accuracy"]
    shown = "unknown" if score is None else f"{score:.3f}"
    logger.info("evaluate: %d test images, balanced accuracy %s", test["images"], shown)


if __name__ == "__main__":
    stage.run(main)
