"""How good Refit's models are, beside what costs nothing and beside the recipe that is posted everywhere.

    python benchmarks/accuracy.py DATASET_FOLDER... --backbone NAME[=WEIGHTS]... [--folds 5] [--seeds 2]

A dataset is a folder with one folder per class. Prints one table: means over folds and seeds ± their standard errors,
and how many points Refit is ahead, paired by fold. All contenders may learn from the same images and are measured on
the same images, none of which is a near duplicate of one that they learned from: Refit's stages ingest to shard see to
that. A seed changes the splits and the training.

- logistic regression: scikit-learn's, on standardised, globally averaged features of the frozen backbone, which is fed
  as it expects; the better one, by mean balanced accuracy, of C=0.01 unweighted and C=1 with balanced class weights.
- naive recipe: x / 255, frozen backbone, GlobalAveragePooling2D, Dense(1024, relu), Dense(classes, softmax), Adam at
  0.001, 5 epochs, batches of 32, no class weights. What the frozen backbone gives is computed once, not in each epoch.
- refit: params.yaml, with what --set changes, by the `refit` command. Some of its images are set aside to stop by.

Seconds are those of all folds of a seed, without ingest to shard; Refit's are of a process for each fold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import baselines
import driving
import numpy as np
from baselines import NAIVE, REFIT, UNWEIGHTED, WEIGHTED
from contenders import run
from driving import Case
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Scores:
    """float64 [folds of all seeds], 0-1. `seconds`: one value per seed."""

    accuracy: NDArray[np.float64]
    balanced: NDArray[np.float64]
    seconds: tuple[float, ...]


def compete(case: Case) -> dict[str, Scores]:
    """All contenders on one dataset, backbone and seed."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        directory, seconds = driving.prepare(home, case)
        note(f"{case}: {driving.accounted(directory)}; ingest to shard {seconds:.0f} s")
        training = driving.train(home, case)
        found = {}
        for name in (UNWEIGHTED, WEIGHTED, NAIVE, REFIT):
            measured = run([sys.executable, __file__, str(directory), "--contender", name, "--seeds", str(case.seed)])
            pairs = np.array(measured.numbers[2:]).reshape(-1, 2)
            took = training if name == REFIT else measured.seconds
            found[name] = Scores(pairs[:, 0], pairs[:, 1], (took,))
            note(f"{case}: {name}: balanced accuracy {pairs[:, 1].mean():.3f}, {took:.0f} s")
        return found


def together(parts: list[Scores]) -> Scores:
    return Scores(
        np.concatenate([part.accuracy for part in parts]),
        np.concatenate([part.balanced for part in parts]),
        tuple(seconds for part in parts for seconds in part.seconds),
    )


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+", metavar="DATASET_FOLDER")
    parser.add_argument("--backbone", action="append", metavar="NAME[=WEIGHTS]")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change Refit's params")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(baselines.measure(arguments.contender, arguments.datasets[0], arguments.seeds)))
        return

    table = Table("dataset", "backbone", "contender", "accuracy", "balanced accuracy", "refit ahead by", "s per seed")
    for source in arguments.datasets:
        for backbone, weights in map(driving.backbone_and_weights, arguments.backbone or ["efficientnet_lite0"]):
            seeds = [
                compete(Case(source.absolute(), backbone, weights, arguments.folds, seed, tuple(arguments.set)))
                for seed in range(arguments.seeds)
            ]
            scores = {name: together([seed[name] for seed in seeds]) for name in seeds[0]}
            linear = max((UNWEIGHTED, WEIGHTED), key=lambda name: scores[name].balanced.mean())
            for name in scores:
                ahead = scores[REFIT].balanced - scores[name].balanced
                table.add_row(
                    source.name,
                    backbone,
                    f"{name} (the better)" if name == linear else name,
                    driving.shown(scores[name].accuracy),
                    driving.shown(scores[name].balanced),
                    "" if name == REFIT else driving.shown(ahead, points=True),
                    f"{mean(scores[name].seconds):.0f}",
                    end_section=name == REFIT,
                )
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(
        f"{arguments.folds} folds x {arguments.seeds} seeds; mean ± standard error; points of balanced accuracy"
        + (f"; {' '.join(arguments.set)}" if arguments.set else "")
    )
    console.print(table)


if __name__ == "__main__":
    main()
