"""How long cross-validated fine-tuning takes, beside the usual Keras script that does the same work.

    python benchmarks/train.py DATASET_FOLDER --backbone NAME[=WEIGHTS] [--folds 5] [--epochs-timed N]

A dataset is a folder with one folder per class. Prints one table: wall time, accuracy and balanced accuracy (means over
folds ± standard errors). Both sides have the same folds, the same images to learn from and to stop by, the same phases
(unfrozen blocks, rates, epochs at most, patience, batch size) and comparable augmentation, start as new processes and
find no cache. Refit's time is that of its stage `train`, a process for each fold; the script is one process and reads
the files as they are (`keras_script.py` is all of it). The second row of Refit adds ingest to shard, which checks,
measures and splits the images besides writing shards.

`--epochs-timed N` runs the script for at most N epochs in each phase and reckons the rest: as many epochs as Refit's
phase took, at the mean time of those after the first. The table says so, and gives no accuracy for the script.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import baselines
import driving
import numpy as np
import pyarrow.parquet as pq
from contenders import run
from driving import Case
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipeline import files
from pipeline.backbones import registry
from pipeline.backbones.registry import Backbone
from pipeline.dataset import presets
from pipeline.dataset.presets import Policy
from pipeline.evaluation import metrics
from pipeline.settings import load
from pipeline.training import recipes


@dataclass(frozen=True)
class Result:
    """`epochs`: run in each phase, the mean of all folds. `scores`: accuracy and balanced accuracy of each fold,
    float64 [folds, 2]."""

    seconds: float
    epochs: NDArray[np.float64]
    scores: NDArray[np.float64]


def by_refit(home: Path, case: Case, directory: Path) -> Result:
    seconds = driving.train(home, case)
    command = [sys.executable, str(Path(__file__).with_name("accuracy.py")), str(directory)]
    measured = run([*command, "--contender", baselines.REFIT, "--seeds", str(case.seed)])
    return Result(seconds, refit_epochs(directory).mean(axis=0), np.array(measured.numbers[2:]).reshape(-1, 2))


def refit_epochs(directory: Path) -> NDArray[np.int64]:
    """Epochs that Refit ran, [folds, phases]."""
    histories = [files.read_json(path) for path in sorted(directory.glob("models/fold-*/history.json"))]
    return np.array([[len(phase["val_loss"]) for phase in history["phases"]] for history in histories])


def by_script(home: Path, case: Case, directory: Path, epochs_timed: int | None) -> Result:
    plan = home / "plan.json"
    files.write_json(plan, {**lay_out(home, case, directory), "epochs_timed": epochs_timed})
    command = [sys.executable, str(Path(__file__).with_name("keras_script.py")), str(plan)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"The script failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    folds = json.loads(done.stdout.splitlines()[-1])
    seconds -= sum(fold["answering"] for fold in folds)
    epochs = np.array([[len(phase) for phase in fold["epochs"]] for fold in folds])
    if epochs_timed is not None:
        wanted = refit_epochs(directory)
        for fold, missing in zip(folds, wanted - epochs, strict=True):
            seconds += sum(more * mean(times[1:] or times) for more, times in zip(missing, fold["epochs"], strict=True))
        epochs = wanted
    scores = []
    for fold in folds:
        labels, answers = np.array(fold["labels"]), np.array(fold["answers"])
        matrix = metrics.confusion(labels, answers, int(max(labels.max(), answers.max())) + 1)
        scores.append((metrics.accuracy(labels, answers), metrics.balanced_accuracy(matrix)))
    return Result(seconds, epochs.mean(axis=0), np.array(scores))


def lay_out(home: Path, case: Case, directory: Path) -> dict[str, Any]:
    """Folders train, val and test for each fold, of links to the images, and the plan of the script."""
    settings = load(directory / "params.yaml")
    rows = pq.read_table(directory / "data/assignment.parquet").to_pylist()
    number_of = {row["image_id"]: row["class"] for row in rows}
    classes = sorted({f"class-{number:05d}" for number in number_of.values()})
    folders = []
    for position, fold in enumerate(driving.folds_of(directory)[1]):
        folder = home / f"script/fold-{position}"
        folders.append(str(folder))
        for split, ids in {"train": fold.learned, "val": fold.stopping, "test": fold.measured}.items():
            for name in classes:
                (folder / split / name).mkdir(parents=True)
            for image_id in ids:
                # ImageDataGenerator goes by the ending, Pillow by the content.
                link = folder / split / f"class-{number_of[image_id]:05d}" / f"{image_id}.png"
                link.symlink_to(home / "images" / image_id[:2] / image_id)
    entry = registry.get(case.backbone)
    return {
        "folds": folders,
        "classes": classes,
        "backbone": case.backbone,
        "weights": settings.train.weights,
        "size": settings.train.input_size,
        "batch_size": settings.train.batch_size,
        "dropout": settings.train.head.dropout,
        "seed": case.seed,
        "augmentation": augmentation(presets.resolve(settings.augment)),
        "phases": [phase_of(phase, entry) for phase in recipes.resolve(settings.train).phases],
    }


def phase_of(phase: recipes.Phase, entry: Backbone) -> dict[str, Any]:
    """`frozen`: the last layer that does not learn; None if all do."""
    if not isinstance(phase.learning_rate, float):
        sys.exit(f"The script needs a number for train.phases.{phase.name}.learning_rate.")
    learning = recipes.blocks(phase, entry)
    frozen = "" if learning == 0 else None if learning == entry.blocks else entry.block_ends[-learning]
    return {
        "frozen": frozen,
        "learning_rate": phase.learning_rate,
        "epochs": phase.epochs,
        "patience": phase.patience,
    }


def augmentation(policy: Policy) -> dict[str, Any]:
    """The same in terms of ImageDataGenerator, as far as it knows it: it changes neither contrast nor hue."""
    return {
        "horizontal_flip": policy.horizontal_flip,
        "vertical_flip": policy.vertical_flip,
        "rotation_range": 360 * policy.rotation,
        "width_shift_range": policy.translation,
        "height_shift_range": policy.translation,
        "zoom_range": policy.zoom,
        "brightness_range": (1 - policy.brightness, 1 + policy.brightness) if policy.brightness else None,
        "fill_mode": policy.fill,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DATASET_FOLDER")
    parser.add_argument("--backbone", default="efficientnet_lite0", metavar="NAME[=WEIGHTS]")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs-timed", type=int, metavar="N")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change params.yaml")
    arguments = parser.parse_args()
    backbone, weights = driving.backbone_and_weights(arguments.backbone)
    source = arguments.dataset.absolute()
    case = Case(source, backbone, weights, arguments.folds, arguments.seed, tuple(arguments.set))
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        directory, preparing = driving.prepare(home, case)
        refit = by_refit(home, case, directory)
        script = by_script(home, case, directory, arguments.epochs_timed)
        images = driving.accounted(directory)

    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{case}, {arguments.folds} folds: {images}" + "".join(f"; {text}" for text in arguments.set))
    table = Table("", "wall s", "script takes × as long", "epochs by phase", "accuracy", "balanced accuracy")
    partly = arguments.epochs_timed
    name = "usual Keras script" + (f", {partly} epochs of a phase timed, the rest reckoned" if partly else "")
    for label, result, seconds in (
        (name, script, script.seconds),
        ("refit, train", refit, refit.seconds),
        ("refit, ingest to shard and train", refit, refit.seconds + preparing),
    ):
        known = result is refit or not partly
        table.add_row(
            label,
            f"{seconds:.0f}",
            "" if result is script else f"{script.seconds / seconds:.1f}",
            " + ".join(f"{count:.1f}" for count in result.epochs),
            *(driving.shown(column) if known else "not measured" for column in result.scores.T),
        )
    console.print(table)


if __name__ == "__main__":
    main()
