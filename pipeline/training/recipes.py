"""Recipes: which phases fine-tuning goes through, with nothing left open: a preset with the user's changes over it.

In each phase some of the backbone's blocks, counted from the top, learn together with the head; the rest is frozen.
The weights that a phase ends with are kept if they are better than those before it by more than chance.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.backbones import registry
from pipeline.backbones.registry import Backbone
from pipeline.errors import SettingsError
from pipeline.settings import AugmentPreset, FromBlock, TopBlocks, Train, Unfreeze

EVERY = "every"
CUSTOM = "custom"
TOP = "top"  # the name of a backbone's last block


@dataclass(frozen=True)
class Phase:
    """The fields are those of `settings.Phase`, the defaults those of phases in which blocks learn.

    unfreeze: what of the backbone learns; `{"top": n}`: its last n blocks; `{"from": name}`: that block and all above.
    epochs: at most; patience: epochs without a better validation loss that end the phase.
    learning_rate: the highest that `schedule` reaches; `find`: by a range test (Smith 2017) before the phase.
    schedule: `cosine` falls to zero over all epochs, `plateau` divides by five after patience/2 epochs without gain.
    warmup: share of all steps in which the rate rises linearly from a hundredth.
    layer_decay: rate of each block by that of the block above it (Howard & Ruder 2018, "discriminative").
    weight_decay: decoupled, of kernels only.
    batch_norm: `frozen` keeps it in inference mode with the statistics that it has, also where blocks learn.
    class_balance: `weights` of the loss, or `sampling` every class equally often, or `none`.
    augment: a preset in the place of `augment.preset`.
    clip_norm: of all gradients together; 0 does not clip.
    ema: decay per step of the averaged weights that are validated and kept; 0 does not average.
    """

    name: str
    unfreeze: Unfreeze = "none"
    epochs: int = 20
    patience: int = 6
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | Literal["find"] = 3e-4
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    warmup: float = 0.1
    layer_decay: float = 1.0
    weight_decay: float = 1e-4
    batch_norm: Literal["frozen", "trained"] = "frozen"
    class_balance: Literal["weights", "sampling", "none"] = "weights"
    augment: AugmentPreset | None = None
    clip_norm: float = 0.0
    ema: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """`hidden`: units of the head's hidden layers."""

    summary: str
    phases: tuple[Phase, ...]
    hidden: tuple[int, ...] = ()


_HEAD = Phase("head", epochs=60, patience=8, schedule="constant", warmup=0.0)
RECIPES: Mapping[str, Recipe] = {
    "linear_probe": Recipe("a linear classifier on frozen features", (_HEAD,)),
    "feature_extraction": Recipe("a small network on frozen features", (_HEAD,), hidden=(256,)),
    "head_then_finetune": Recipe(
        "the head on frozen features, then the last blocks with it",
        (_HEAD, Phase("finetune", TopBlocks(top=3), epochs=10, patience=4, learning_rate=2e-4)),
    ),
    "gradual_unfreeze": Recipe(
        "the head, then more and more blocks from the top, each time at lower rates (Howard & Ruder 2018)",
        (
            _HEAD,
            Phase("last", TopBlocks(top=1), epochs=10, patience=4, layer_decay=0.4),
            Phase("upper", TopBlocks(top=3), epochs=10, patience=4, learning_rate=2e-4, layer_decay=0.6),
            Phase("half", TopBlocks(top=5), epochs=10, patience=4, learning_rate=1e-4, layer_decay=0.8),
        ),
    ),
    "discriminative": Recipe(
        "the head, then the whole backbone, each block at a lower rate than the one above it",
        (_HEAD, Phase("finetune", "all", layer_decay=0.8)),
    ),
    "full": Recipe(
        "the head, then the whole backbone at one rate",
        (_HEAD, Phase("finetune", "all", learning_rate=1e-4)),
    ),
    "from_scratch": Recipe(
        "everything from random weights, BatchNorm too; for tens of thousands of images",
        (
            Phase(
                "scratch",
                "all",
                epochs=100,
                patience=20,
                learning_rate=1e-3,
                weight_decay=0.05,
                batch_norm="trained",
                clip_norm=1.0,
                ema=0.999,
            ),
        ),
    ),
    CUSTOM: Recipe("the phases of train.phases alone", ()),
}


def resolve(settings: Train) -> Recipe:
    """The recipe that `settings` name, with their changes. Raises `SettingsError` for a phase that it does not have."""
    preset = RECIPES[settings.recipe]
    hidden = preset.hidden if settings.head.hidden is None else settings.head.hidden
    changes = {name: _said(phase) for name, phase in settings.phases.items()}
    every = changes.pop(EVERY, {})
    if settings.recipe == CUSTOM:
        if not changes:
            raise SettingsError(
                "train.recipe: custom expects phases in train.phases, found none.",
                fix="give phases, or choose one of the recipes that `refit recipes` lists",
            )
        named = tuple(replace(Phase(name), **every | said) for name, said in changes.items())
        return replace(preset, phases=named, hidden=hidden)
    known = [phase.name for phase in preset.phases]
    for name in changes:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            guess = f", did you mean {close[0]}?" if close else "."
            raise SettingsError(
                f"train.phases.{name}: {settings.recipe} has the phases {', '.join(known)}{guess}",
                fix="change one of them, or every, or write phases of your own with train.recipe=custom",
            )
    changed = tuple(replace(phase, **every | changes.get(phase.name, {})) for phase in preset.phases)
    return replace(preset, phases=changed, hidden=hidden)


def blocks(phase: Phase, backbone: Backbone) -> int:
    """How many blocks, counted from the top, learn in `phase`. Raises `SettingsError` if there are no such blocks."""
    match phase.unfreeze:
        case "none":
            return 0
        case "all":
            return backbone.blocks
        case TopBlocks(top=number):
            # A recipe's own number is for all backbones; `check` refuses what the user asks for in vain.
            return number if number <= backbone.blocks else max(1, backbone.blocks - 1)
        case FromBlock(from_=name):
            names = (*backbone.block_ends, TOP)
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                guess = f", did you mean {close[0]}?" if close else "."
                raise SettingsError(
                    f"train.phases.{phase.name}.unfreeze: {backbone.name} has no block {name!r}{guess}",
                    fix=f"name one of {', '.join(names)}",
                )
            return len(names) - names.index(name)


def check(settings: Train) -> Backbone:
    """The backbone that `settings` name. Raises `SettingsError` if they ask of it or of the recipe what cannot be."""
    backbone = registry.check(settings)
    for name, asked in settings.phases.items():
        number = asked.unfreeze.top if isinstance(asked.unfreeze, TopBlocks) else 0
        if number > backbone.blocks:
            raise SettingsError(
                f"train.phases.{name}.unfreeze: {backbone.name} has {backbone.blocks} blocks, got {number}.",
                fix=f"set it to none, all or {{top: 1-{backbone.blocks}}}",
            )
    recipe = resolve(settings)
    learning = [blocks(phase, backbone) for phase in recipe.phases]
    if settings.recipe == "from_scratch" and settings.weights != registry.NONE:
        raise SettingsError(
            f"train.weights: the recipe from_scratch starts from random weights, got {settings.weights!r}.",
            fix="set train.weights to none, or take another recipe",
        )
    if settings.weights == registry.NONE and max(learning) < backbone.blocks:
        raise SettingsError(
            f"train.weights: none leaves blocks random that {settings.recipe} never trains.",
            fix="take weights, or train.recipe=from_scratch",
        )
    return backbone


def _said(phase: Any) -> dict[str, Any]:
    """What a `settings.Phase` changes."""
    return {name: value for name in type(phase).model_fields if (value := getattr(phase, name)) is not None}
