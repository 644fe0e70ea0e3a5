"""How fast images become TFRecords, beside the usual loop and beside TensorFlow Datasets.

    python benchmarks/shard.py FOLDER [--threads N] [--rounds N] [--copies N]

Prints one table. "refit" is what the stage does: read from the image store, check the digest, write shards and index,
flush them to disk. The loops are what scripts do, in one process: decode, encode as JPEG, `tf.io.TFRecordWriter`.
TensorFlow Datasets stores the files' bytes and does not decode them; as the others it is given ready files.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from contenders import compete, copy_images, ratio
from rich.console import Console
from rich.table import Table

SIDE, QUALITY = 256, 90
REFIT, REFIT_SMALL, LOOP, LOOP_SMALL, TFDS = (*("refit", f"refit {SIDE} px", "loop", f"loop {SIDE} px", "tfds"),)


def refit(paths: Sequence[Path], target: Path, threads: int, max_side: int | None) -> Callable[[], object]:
    from pipeline.dataset import shards, store

    rows = []
    for number, path in enumerate(paths):
        data = path.read_bytes()
        image_id = store.put(data)
        rows.append(shards.Row(image_id, number % 2, "ab"[number % 2], image_id, "train", (), len(data)))
    layout = shards.Layout(128 << 20, None, max_side, QUALITY, "none")
    return lambda: shards.write(target, {"0001": rows}, ["a", "b"], layout, threads=threads)


def loop(paths: Sequence[Path], target: Path, max_side: int | None) -> Callable[[], object]:
    import tensorflow as tf

    def of_bytes(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def of_int(value: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    def write() -> None:
        with tf.io.TFRecordWriter(str(target / "train.tfrecord")) as writer:
            for number, path in enumerate(paths):
                image = tf.io.decode_image(tf.io.read_file(str(path)), channels=3, expand_animations=False)
                height, width = image.shape[:2]
                if max_side is not None and max(height, width) > max_side:
                    height, width = (round(side * max_side / max(image.shape[:2])) for side in (height, width))
                    image = tf.cast(tf.image.resize(image, (height, width), antialias=True) + 0.5, tf.uint8)
                features = {
                    "image/encoded": of_bytes(tf.io.encode_jpeg(image, quality=QUALITY if max_side else 95).numpy()),
                    "image/format": of_bytes(b"jpeg"),
                    "image/height": of_int(height),
                    "image/width": of_int(width),
                    "image/class/label": of_int(number % 2),
                    "image/id": of_bytes(path.name.encode()),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())

    return write


def tensorflow_datasets(paths: Sequence[Path], target: Path) -> Callable[[], object]:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    import tensorflow_datasets as tfds

    class Pictures(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _: Any) -> Any:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            for number, path in enumerate(paths):
                yield path.name, {"image": str(path), "label": number % 2}

    tfds.disable_progress_bar()
    builder = Pictures(data_dir=str(target))
    config = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP)
    return lambda: builder.download_and_prepare(download_config=config)


def measure(name: str, folder: Path, threads: int) -> list[float]:
    """Seconds, core seconds and bytes written. Imports and the filling of the store are not counted."""
    paths = sorted(folder.iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch)
        if name in (REFIT, REFIT_SMALL):
            write = refit(paths, target, threads, SIDE if name == REFIT_SMALL else None)
        elif name == TFDS:
            write = tensorflow_datasets(paths, target)
        else:
            write = loop(paths, target, SIDE if name == LOOP_SMALL else None)
        start, used = time.perf_counter(), sum(os.times()[:4])
        write()
        took = [time.perf_counter() - start, sum(os.times()[:4]) - used]
        return [*took, sum(path.stat().st_size for path in target.rglob("*") if path.is_file())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(measure(arguments.contender, arguments.folder, arguments.threads)))
        return

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "images")
        folder.mkdir()
        count = copy_images(arguments.folder, folder, arguments.copies)
        os.environ["REFIT_HOME"] = str(Path(scratch, "home"))
        same = [sys.executable, __file__, str(folder), "--threads", str(arguments.threads)]
        names = (REFIT, REFIT_SMALL, LOOP, LOOP_SMALL, TFDS)
        results = compete({name: [*same, "--contender", name] for name in names}, arguments.rounds)

    table = Table("", "images/s", "images/core s", "MB/s", "peak MB", f"× {LOOP}", f"× {LOOP_SMALL}", f"× {TFDS}")
    for name, runs in results.items():
        rate, per_core = (count / median(getattr(run, key) for run in runs) for key in ("seconds", "core_seconds"))
        volume = median(run.numbers[2] / run.seconds for run in runs) / 1e6
        figures = (rate, per_core, volume, median(run.peak for run in runs) / 2**20)
        ratios = (f"{ratio(results[other], runs):.2f}" for other in (LOOP, LOOP_SMALL, TFDS))
        table.add_row(name, *(f"{figure:.0f}" for figure in figures), *ratios)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{count} images, {arguments.threads} threads, medians of {arguments.rounds} rounds")
    console.print(table)


if __name__ == "__main__":
    main()
