"""Stage `serve`: try the exported model as it will be served. What goes wrong is a finding, for the gate to judge."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import files, runtime, stage
from pipeline.settings import load

logger = logging.getLogger(__name__)


def main() -> None:
    runtime.prepare()
    from pipeline.serving import rehearsing  # imports TensorFlow, which reads its log level then

    settings = load(Path("params.yaml"))
    found = rehearsing.rehearse(
        Path("models/final"),
        Path("data/shards"),
        pq.read_table("data/predictions.parquet"),
        settings.serve,
        run=Path.cwd(),
    )
    files.write_json(Path("metrics/serving.json"), found)
    for name in ("fresh_process", "container"):
        logger.info(
            "serve: %s %s", name.replace("_", " "), ": ".join(filter(None, map(found[name].get, ("status", "reason"))))
        )


if __name__ == "__main__":
    stage.run(main)
