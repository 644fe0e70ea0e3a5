"""What benchmarks of training share: Refit driven stage by stage, as a scheduler drives it, and the folds it drew."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import files

RUN = "run"  # every case has a REFIT_HOME of its own, so that no cache of one serves another
PREPARING = ("ingest", "profile", "validate", "shard")
# What there is to say about the data does not stop a comparison on it.
_WARN_ONLY = ("class_size", "quarantine_share", "schema")


@dataclass(frozen=True)
class Case:
    """A dataset (one folder per class), a backbone and a seed. `changes`: `section.key=value` over params.yaml."""

    source: Path
    backbone: str
    weights: str
    folds: int
    seed: int
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.source.name}, {self.backbone}, seed {self.seed}"

    @property
    def overrides(self) -> tuple[str, ...]:
        parts = [*(f"fold-{number}" for number in range(self.folds)), "final"]
        return (
            f"train.parts=[{', '.join(parts)}]",
            f"train.backbone={self.backbone}",
            f"train.weights={self.weights}",
            f"train.seed={self.seed}",
            f"shard.salt=benchmark-{self.seed}",
            # As many images as possible are measured on; no contender sees those held out for a final model.
            "shard.test_share=0.02",
            *(f"validate.policy.{name}=warn" for name in _WARN_ONLY),
            *self.changes,
        )


@dataclass(frozen=True)
class Fold:
    """Image ids. `learned` and `stopping` are Refit's own: what it learns from, and what early stopping goes by."""

    learned: tuple[str, ...]
    stopping: tuple[str, ...]
    measured: tuple[str, ...]


def backbone_and_weights(text: str) -> tuple[str, str]:
    """`NAME` or `NAME=WEIGHTS`, as `--backbone` takes them."""
    name, _, weights = text.partition("=")
    return name, weights or "imagenet"


def refit(home: Path, *arguments: str) -> float:
    """Seconds that a `refit` command took. Ends the benchmark with all it said if it fails."""
    environment = os.environ | {"REFIT_HOME": str(home), "TQDM_DISABLE": "1"}
    # DVC starts stages by the name `python`, which must be this one.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    command = [sys.executable, "-c", "from pipeline.cli.main import app; app()", *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"refit {' '.join(arguments)} failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


def prepare(home: Path, case: Case) -> tuple[Path, float]:
    """The directory of a run that is ready to train, and the seconds from ingest to shard."""
    changes = [text for change in case.overrides for text in ("--set", change)]
    refit(home, "start", "--run-id", RUN, "--source", str(case.source), "--model", RUN, *changes)
    seconds = sum(refit(home, "stage", name, "--run-id", RUN) for name in PREPARING)
    return home / "runs" / RUN, seconds


def train(home: Path, case: Case) -> float:
    """Train Refit's folds, each in a process of its own; returns the seconds of all."""
    folds = range(case.folds)
    return sum(refit(home, "stage", "train", "--part", f"fold-{number}", "--run-id", RUN) for number in folds)


def folds_of(run: Path) -> tuple[dict[str, int], list[Fold]]:
    """Class of each image that is in a fold, and the folds. Test images and those kept out are in none."""
    rows = pq.read_table(run / "data/assignment.parquet").to_pylist()
    rows = [row for row in rows if row["split"] in {"train", "val"}]

    def others(fold: int, split: str) -> tuple[str, ...]:
        return tuple(row["image_id"] for row in rows if row["fold"] != fold and row["split"] == split)

    folds = [
        Fold(
            others(number, "train"),
            others(number, "val"),
            tuple(row["image_id"] for row in rows if row["fold"] == number),
        )
        for number in sorted({row["fold"] for row in rows})
    ]
    return {row["image_id"]: row["class"] for row in rows}, folds


def accounted(run: Path) -> str:
    """Where every file of the source went."""
    splits = Counter(row["split"] for row in pq.read_table(run / "data/assignment.parquet").to_pylist())
    waiting = files.read_json(run / "metrics/ingest.json")["quarantined"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in waiting.items()) or "none"
    return (
        f"{splits['train'] + splits['val']} images in the folds, {splits['test']} held out, "
        f"{splits['quarantine']} kept out, in quarantine: {reasons}"
    )


def shown(values: NDArray[np.float64], *, points: bool = False) -> str:
    """Mean ± standard error; as signed percentage points if asked."""
    middle, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    return f"{100 * middle:+.1f} ± {100 * error:.1f}" if points else f"{middle:.3f} ± {error:.3f}"
