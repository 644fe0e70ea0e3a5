"""What the causes are judged by, read once from the files of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.backbones import registry
from pipeline.settings import Diagnose, Settings, Train
from pipeline.training import recipes


@dataclass(frozen=True)
class Answer:
    """What a model said about an image that it had not seen in training."""

    label: str
    predicted: str
    confidence: float  # 0-1, of `predicted`
    uri: str
    source: str  # test, or fold-k
    batch: str
    short_side: int  # pixels of the original

    @property
    def right(self) -> bool:
        return self.label == self.predicted


@dataclass(frozen=True)
class Phase:
    """A phase of training: one value per epoch; losses in nats, accuracies 0-1."""

    name: str
    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    val_loss: tuple[float, ...]
    val_accuracy: tuple[float, ...]
    learning_rate: float  # its highest

    @property
    def best(self) -> int:
        """The epoch, from 0, of the lowest validation loss."""
        return min(range(len(self.val_loss)), key=self.val_loss.__getitem__)


@dataclass(frozen=True)
class Facts:
    train: Train
    thresholds: Diagnose
    training_groups: Mapping[str, int]  # label to different pictures (groups) in train and val
    val_images: int
    answers: tuple[Answer, ...]
    phases: tuple[Phase, ...]
    kept_phase: str
    test_accuracy: float | None
    test_images: int
    balanced_accuracy: float  # of the test set; of cross-validation where that has no images
    folds: tuple[float, ...]  # balanced accuracy of each
    drifted: Mapping[str, float]  # feature to distance, 0-1, of what drifted

    @property
    def kept(self) -> Phase:
        return next(phase for phase in self.phases if phase.name == self.kept_phase)

    @property
    def plan(self) -> Mapping[str, recipes.Phase]:
        """What params ask of each phase."""
        return {phase.name: phase for phase in recipes.resolve(self.train).phases}

    def unfrozen(self, phase: str) -> int:
        """Blocks of the backbone, counted from the top, that learn in a phase."""
        return recipes.blocks(self.plan[phase], registry.get(self.train.backbone))

    @property
    def weigh(self) -> Mapping[str, str]:
        """The change of params that makes rare classes count as much, where a phase does not see to it."""
        lacks = any(phase.class_balance == "none" for phase in self.plan.values())
        return {"train.phases.every.class_balance": "weights"} if lacks else {}


def read(run: Path, settings: Settings) -> Facts:
    """From a run's workspace after `evaluate`."""
    assignment = pq.read_table(run / "data/assignment.parquet").to_pylist()
    metrics = files.read_json(run / "metrics/evaluate.json")
    history = files.read_json(run / "models/final/history.json")
    drift = files.read_json(run / "metrics/profile.json")["drift"]
    test, folds = metrics["test"], metrics["cross_validation"]
    known = [score for score in (test["balanced_accuracy"], folds["balanced_accuracy_mean"], 0.0) if score is not None]
    return Facts(
        train=settings.train,
        thresholds=settings.diagnose,
        training_groups=_training_groups(assignment),
        val_images=sum(row["split"] == "val" for row in assignment),
        answers=_answers(run, {row["image_id"]: row["batch"] for row in assignment}),
        phases=tuple(
            Phase(
                name=entry["name"],
                loss=tuple(entry["loss"]),
                accuracy=tuple(entry["accuracy"]),
                val_loss=tuple(entry["val_loss"]),
                val_accuracy=tuple(entry["val_accuracy"]),
                learning_rate=entry["peak_learning_rate"],
            )
            for entry in history["phases"]
            if entry["val_loss"]
        ),
        kept_phase=history["kept_phase"],
        test_accuracy=test["accuracy"],
        test_images=test["images"],
        balanced_accuracy=known[0],
        folds=tuple(fold["balanced_accuracy"] for fold in folds["folds"] if fold["balanced_accuracy"] is not None),
        drifted={row["feature"]: row["distance"] for row in drift if row["drifted"] and row["against"] == "live"},
    )


def _training_groups(assignment: list[dict[str, Any]]) -> dict[str, int]:
    pairs = {(row["label"], row["group"]) for row in assignment if row["split"] in {"train", "val"}}
    return {label: sum(name == label for name, _ in pairs) for label in sorted({row["label"] for row in assignment})}


def _answers(run: Path, batches: Mapping[str, str]) -> tuple[Answer, ...]:
    columns = ["image_id", "width", "height"]
    features = pa.concat_tables(
        pq.read_table(path, columns=columns) for path in sorted((run / "data/features").glob("[0-9]*.parquet"))
    )
    side = {row["image_id"]: min(row["width"], row["height"]) for row in features.to_pylist()}
    names = ["image_id", "uri", "label", "predicted", "confidence", "source"]
    rows = pq.read_table(run / "data/predictions.parquet", columns=names).to_pylist()
    return tuple(
        Answer(
            label=row["label"],
            predicted=row["predicted"],
            confidence=row["confidence"],
            uri=row["uri"],
            source=row["source"],
            batch=batches[row["image_id"]],
            short_side=side[row["image_id"]],
        )
        for row in rows
    )
