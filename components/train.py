"""Stage `train`: fine-tune the backbone for one part, a cross-validation fold or the final model."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import runtime, stage
from pipeline.settings import load


def main() -> None:
    runtime.prepare()
    from pipeline.training import devices, trainer  # imports TensorFlow, which reads its log level then

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", required=True, help="fold-0, ... or final")
    part = parser.parse_args().part
    settings = load(Path("params.yaml"))
    here = devices.current()
    # Other workers may share this directory; what they write but for checkpoints goes away.
    own = "" if here.chief else f"-worker-{here.number}"
    with (
        here.watched(),
        here.directory(Path("models", part)) as models,
        here.directory(Path("logs", part)) as logs,
    ):
        trainer.train(
            part,
            settings,
            trainer.Places(
                shards=Path("data/shards"),
                warm_start=Path("warm_start.json"),
                models=models,
                logs=logs,
                curves=Path("plots/curves", f"{part}.csv") if here.chief else models / "curves.csv",
                checkpoints=Path("checkpoints", part + own),
            ),
            here,
            assignment=pq.read_table("data/assignment.parquet"),
            environment=os.environ,
        )


if __name__ == "__main__":
    stage.run(main)
