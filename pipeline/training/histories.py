"""`history.json`: what training was asked for, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.settings import Train
from pipeline.training.part_images import PartImages
from pipeline.training.phases import Trained
from pipeline.training.recipes import Phase, Recipe


def history(
    settings: Train, recipe: Recipe, trained: Sequence[Trained], images: PartImages, *, blocks: int
) -> dict[str, Any]:
    """`blocks`: of the backbone."""
    roles = images.roles
    return {
        "phases": [_phase(phase, blocks) for phase in trained],
        "kept_phase": [phase.fitted.name for phase in trained if phase.kept][-1],
        "classes": list(images.index.classes),
        "images": {"train": len(roles.train), "val": len(roles.val), "copies": sum(roles.copies.values())},
        "recipe": {
            "name": settings.recipe,
            "hidden": list(recipe.hidden),
            "phases": [_planned(phase) for phase in recipe.phases],
        },
    }


def _phase(trained: Trained, blocks: int) -> dict[str, Any]:
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
        "unfrozen": f"{trained.blocks} of {blocks} blocks",
        "cached": trained.cached,
        "batch_size": trained.batch_size,
    }


def _planned(phase: Phase) -> dict[str, Any]:
    unfreeze = phase.unfreeze
    return asdict(phase) | {"unfreeze": unfreeze if isinstance(unfreeze, str) else unfreeze.model_dump(by_alias=True)}
