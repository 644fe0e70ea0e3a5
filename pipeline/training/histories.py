"""`history.json`: what training did, and what is needed to repeat it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

import keras
import numpy as np

from pipeline.settings import Train
from pipeline.training.part_images import PartImages
from pipeline.training.phases import Trained
from pipeline.training.recipes import Phase, Recipe


def history(settings: Train, recipe: Recipe, trained: Sequence[Trained], images: PartImages) -> dict[str, Any]:
    roles = images.roles
    return {
        "phases": [_phase(phase) for phase in trained],
        "kept_phase": [phase.fitted.name for phase in trained if phase.kept][-1],
        "classes": list(images.index.classes),
        "images": {"train": len(roles.train), "val": len(roles.val), "copies": sum(roles.copies.values())},
        "recipe": {
            "name": settings.recipe,
            "hidden": list(recipe.hidden),
            "phases": [_planned(phase) for phase in recipe.phases],
        },
        "environment": environment(settings),
    }


def _phase(trained: Trained) -> dict[str, Any]:
    fitted = trained.fitted
    return {
        "name": fitted.name,
        **fitted.curves,
        "best_epoch": fitted.best_epoch,
        "seconds": round(fitted.seconds, 2),
        "images_per_second": round(fitted.images_per_second, 1),
        "peak_learning_rate": fitted.learning_rate,
        "range_test": [list(point) for point in fitted.range_test],
        "unfrozen_blocks": trained.blocks,
        "cached": trained.cached,
        "batch_size": trained.batch_size,
    }


def _planned(phase: Phase) -> dict[str, Any]:
    unfreeze = phase.unfreeze
    return asdict(phase) | {"unfreeze": unfreeze if isinstance(unfreeze, str) else unfreeze.model_dump(by_alias=True)}


def environment(settings: Train) -> dict[str, Any]:
    """What a reader needs to repeat the training."""
    return {
        "python": platform.python_version(),
        "keras": keras.version(),
        "tensorflow": metadata.version("tensorflow"),
        "numpy": np.__version__,
        "backend": keras.backend.backend(),
        "devices": [str(device) for device in keras.distribution.list_devices()],
        "seed": settings.seed,
        "backbone": settings.backbone,
        "weights": settings.weights,
        "input_size": settings.input_size,
        "filters": list(settings.filters),
    }
