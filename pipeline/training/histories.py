"""`history.json`: what training was asked for, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.settings import Train
from pipeline.training.fitted import Fitted
from pipeline.training.part_images import PartImages
from pipeline.training.phases import Planned
from pipeline.training.recipes import Phase, Recipe


def history(
    settings: Train,
    recipe: Recipe,
    planned: Sequence[Planned],
    fitted: Sequence[Fitted],
    images: PartImages,
    *,
    blocks: int,
) -> dict[str, Any]:
    """`blocks`: of the backbone."""
    roles = images.roles
    return {
        "phases": [_phase(its, phase, blocks) for its, phase in zip(planned, fitted, strict=True)],
        "kept_phase": [phase.name for phase in fitted if phase.kept][-1],
        "classes": list(images.index.classes),
        "images": {"train": len(roles.train), "val": len(roles.val), "copies": sum(roles.copies.values())},
        "recipe": {
            "name": settings.recipe,
            "hidden": list(recipe.hidden),
            "phases": [_asked(phase) for phase in recipe.phases],
        },
    }


def _phase(planned: Planned, fitted: Fitted, blocks: int) -> dict[str, Any]:
    return {
        "name": fitted.name,
        **fitted.curves,
        "best_epoch": fitted.best_epoch,
        "kept": fitted.kept,
        "seconds": round(fitted.seconds, 2),
        "images_per_second": round(fitted.images_per_second, 1),
        "peak_learning_rate": fitted.learning_rate,
        "range_test": [list(point) for point in fitted.range_test],
        "unfrozen_blocks": planned.blocks,
        "unfrozen": f"{planned.blocks} of {blocks} blocks",
        "cached": planned.cached,
        "batch_size": fitted.batch_size,
    }


def _asked(phase: Phase) -> dict[str, Any]:
    unfreeze = phase.unfreeze
    return asdict(phase) | {"unfreeze": unfreeze if isinstance(unfreeze, str) else unfreeze.model_dump(by_alias=True)}
