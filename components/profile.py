"""profile: measure every new image, compare with the live model's training data and with ImageNet."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipeline import files, runtime, settings, stage
from pipeline.dataset import manifest
from pipeline.errors import DataError
from pipeline.profiling import batches, summary
from pipeline.profiling.imagenet import reference


def main() -> None:
    params = settings.load(Path("params.yaml"))
    rows = manifest.read_batches(Path("data/manifest"))
    batches.update(Path("data/features"), rows, params.execution.processes)
    table = batches.current(rows, manifest.read_batches(Path("data/features")))
    if not table.num_rows:
        raise DataError(
            "Expected images to profile, every one is in quarantine.", fix="see the reasons in data/quarantine"
        )
    live = files.read_json(Path("live.json"))["path"]
    content = summary.summarise(
        table,
        None if live is None else pq.read_table(Path(live, "training.parquet")),
        reference.load(),
        alpha=params.profile.drift_alpha,
        min_distance=params.profile.drift_min_distance,
    )
    # Imported late: the processes that measure images import this file, and would spend seconds on TensorFlow.
    with runtime.quiet_imports():
        from pipeline.profiling import statistics
    files.write_bytes(Path("data/statistics/stats.pb"), statistics.to_bytes(statistics.compute(table)))
    files.write_json(Path("metrics/profile.json"), content)


if __name__ == "__main__":
    stage.run(main)
