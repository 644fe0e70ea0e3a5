"""Stage `train`: fine-tune the backbone for one part, a cross-validation fold or the final model."""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import files, runtime, stage
from pipeline.settings import load


def main() -> None:
    runtime.prepare()
    from pipeline.training import trainer  # imports TensorFlow, which reads its log level then

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", required=True, help="fold-0, ... or final")
    part = parser.parse_args().part
    settings = load(Path("params.yaml"))
    with (
        files.replacing_directory(Path("models", part)) as models,
        files.replacing_directory(Path("logs", part)) as logs,
    ):
        trainer.train(
            part,
            settings,
            assignment=pq.read_table("data/assignment.parquet"),
            shards=Path("data/shards"),
            warm_start=Path("warm_start.json"),
            models=models,
            logs=logs,
            checkpoints=Path("checkpoints", part),
        )


if __name__ == "__main__":
    stage.run(main)
