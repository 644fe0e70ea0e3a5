"""How fast images reach training, beside raw decoding and beside Keras's own ways of reading a folder.

    python benchmarks/input.py FOLDER [--rounds N] [--copies N] [--size PIXELS]

Prints one table, of batches of 32 images of SIZE x SIZE pixels. "decode" decodes the same JPEGs with TensorFlow on all
cores, from memory, at their own size, and does nothing else with them. All that augment do the same: mirror, turn,
shift, zoom, brightness, with the edge repeated. "refit 256" reads shards that were written with `shard.max_side: 256`.
The first batch is not counted: it waits for programs to be traced.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from contenders import compete, copy_images, ratio
from rich.console import Console
from rich.table import Table

BATCH = 32
TURN, SHIFT, ZOOM, BRIGHTNESS = 0.03, 0.06, 0.1, 0.1
DECODE, READ, READ_SMALL = "decode", "refit, read", "refit 256, read"
ALTER, ALTER_SMALL = "refit, augment", "refit 256, augment"
GENERATOR, LAYERS = "ImageDataGenerator", "directory + layers"


def decode(folder: Path, size: int) -> Iterator[int]:
    import tensorflow as tf

    contents = [path.read_bytes() for path in sorted(folder.rglob("*.*"))]
    images = tf.data.Dataset.from_tensor_slices(contents).repeat()
    pixels = images.map(lambda data: tf.io.decode_jpeg(data, channels=3), tf.data.AUTOTUNE).prefetch(BATCH)
    for number, _ in enumerate(pixels, start=1):
        if number % BATCH == 0:
            yield BATCH


def refit(folder: Path, size: int, *, augments: bool, max_side: int | None) -> Iterator[int]:
    import tensorflow as tf

    from pipeline.dataset import augment, presets, records, shards, store

    rows = []
    for number, path in enumerate(sorted(folder.rglob("*.*"))):
        data = path.read_bytes()
        rows.append(shards.Row(store.put(data), number % 2, "ab"[number % 2], "", "train", (), len(data)))
    target = folder.parent / f"shards-{max_side}"
    layout = shards.Layout(32 << 20, None, max_side, 90, "none")
    index = shards.write(target, {"0001": rows}, ["a", "b"], layout, threads=2)
    policy = presets.Policy(horizontal_flip=True, rotation=TURN, translation=SHIFT, zoom=ZOOM, brightness=BRIGHTNESS)
    keep = {row.image_id: row.label for row in rows}
    batches = records.batches(target, index, keep, size=size, batch_size=BATCH, policy=policy, seed=1)

    def alter(found: dict[str, Any]) -> Any:
        mirrored = tf.ones(BATCH, tf.bool)
        return augment.altered(found["image"], found["id"], found["view"], mirrored, policy=policy, seed=1)

    if augments:
        batches = batches.map(alter, tf.data.AUTOTUNE).prefetch(2)
    for _ in batches:
        yield BATCH


def generator(folder: Path, size: int) -> Iterator[int]:
    import tensorflow as tf

    source = tf.keras.preprocessing.image.ImageDataGenerator(
        horizontal_flip=True,
        rotation_range=360 * TURN,
        width_shift_range=SHIFT,
        height_shift_range=SHIFT,
        zoom_range=ZOOM,
        brightness_range=(1 - BRIGHTNESS, 1 + BRIGHTNESS),
        fill_mode="nearest",
    )
    while True:
        for images, _ in source.flow_from_directory(str(folder), target_size=(size, size), batch_size=BATCH):
            yield len(images)


def directory_and_layers(folder: Path, size: int) -> Iterator[int]:
    import keras
    import tensorflow as tf

    images = keras.utils.image_dataset_from_directory(
        str(folder), image_size=(size, size), batch_size=BATCH, verbose=False
    )
    alter = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(TURN, fill_mode="nearest"),
            keras.layers.RandomTranslation(SHIFT, SHIFT, fill_mode="nearest"),
            keras.layers.RandomZoom(ZOOM, fill_mode="nearest"),
            keras.layers.RandomBrightness(BRIGHTNESS),
        ]
    )
    altered = images.map(lambda x, y: (alter(x, training=True), y), tf.data.AUTOTUNE).prefetch(2).repeat()
    for batch, _ in altered:
        yield len(batch)


CONTENDERS: dict[str, Callable[[Path, int], Iterator[int]]] = {
    DECODE: decode,
    READ: lambda folder, size: refit(folder, size, augments=False, max_side=None),
    READ_SMALL: lambda folder, size: refit(folder, size, augments=False, max_side=256),
    ALTER: lambda folder, size: refit(folder, size, augments=True, max_side=None),
    ALTER_SMALL: lambda folder, size: refit(folder, size, augments=True, max_side=256),
    GENERATOR: generator,
    LAYERS: directory_and_layers,
}


def measure(name: str, folder: Path, size: int) -> list[float]:
    """Seconds, core seconds and images of at least five seconds of work."""
    warnings.simplefilter("ignore")
    batches = CONTENDERS[name](folder, size)
    next(batches)
    start, used, images = time.perf_counter(), sum(os.times()[:4]), 0
    while time.perf_counter() - start < 5:
        images += next(batches)
    return [(time.perf_counter() - start) / images, (sum(os.times()[:4]) - used) / images, images]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(measure(arguments.contender, arguments.folder, arguments.size)))
        return

    with tempfile.TemporaryDirectory() as scratch:
        flat, folder = Path(scratch, "flat"), Path(scratch, "images")
        flat.mkdir()
        count = copy_images(arguments.folder, flat, arguments.copies)
        for number, path in enumerate(sorted(flat.iterdir())):
            (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            shutil.move(path, folder / "ab"[number % 2] / f"{path.stem}.jpg")
        os.environ["REFIT_HOME"] = str(Path(scratch, "home"))
        same = [sys.executable, __file__, str(folder), "--size", str(arguments.size)]
        results = compete({name: [*same, "--contender", name] for name in CONTENDERS}, arguments.rounds)

    table = Table("", "images/s", "images/core s", "MB/s", "peak MB", "÷ decode", f"× {GENERATOR}", f"× {LAYERS}")
    for name, runs in results.items():
        rate, per_core = (1 / median(getattr(run, key) for run in runs) for key in ("seconds", "core_seconds"))
        figures = (rate, per_core, rate * arguments.size**2 * 3 / 1e6, median(run.peak for run in runs) / 2**20)
        ratios = (f"{ratio(results[other], runs):.2f}" for other in (DECODE, GENERATOR, LAYERS))
        table.add_row(name, *(f"{figure:.0f}" for figure in figures), *ratios)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{count} images, {arguments.size} px, medians of {arguments.rounds} rounds; MB: of pixels")
    console.print(table)


if __name__ == "__main__":
    main()
