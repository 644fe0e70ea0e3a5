"""Facts of a sound training, from which each test bends one thing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.diagnosis.facts import Answer, Facts, Phase
from pipeline.settings import load

SETTINGS = load(Path(__file__).parents[3] / "params.yaml")
CLASSES = ("ant", "bee", "cow", "dog")


def answers(label: str, predicted: str, count: int, **changes: Any) -> tuple[Answer, ...]:
    one = Answer(
        label=label, predicted=predicted, confidence=0.8, uri="u.jpg", source="test", batch="0001", short_side=256
    )
    return (replace(one, **changes),) * count


def phase(name: str, *, accuracy: float = 0.98, val_accuracy: float = 0.97, val_loss: float = 0.1) -> Phase:
    return Phase(name, (0.5, 0.1), (0.8, accuracy), (0.4, val_loss), (0.8, val_accuracy), learning_rate=1e-3)


SOUND = Facts(
    train=SETTINGS.train,
    thresholds=SETTINGS.diagnose,
    training_groups=dict.fromkeys(CLASSES, 200),
    val_images=150,
    answers=tuple(answer for label in CLASSES for answer in answers(label, label, 240)),
    phases=(phase("head", val_loss=0.15), phase("finetune")),
    kept_phase="finetune",
    test_accuracy=0.97,
    test_images=150,
    balanced_accuracy=0.97,
    folds=(0.97, 0.98, 0.96),
    drifted={},
)


def poor(**changes: Any) -> Facts:
    """A model that falls short, otherwise sound."""
    return replace(SOUND, **({"balanced_accuracy": 0.7} | changes))
