"""The phases of a recipe, each on what is frozen below the blocks that learn in it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.backbones import registry
from pipeline.settings import Augment, Train
from pipeline.training import classifier as assembly
from pipeline.training import fitting, recipes, views
from pipeline.training.checkpoints import Checkpoint
from pipeline.training.classifier import Classifier
from pipeline.training.fitted import Fitted
from pipeline.training.fitting import OutOfMemory
from pipeline.training.frozen import Frozen
from pipeline.training.recipes import Phase
from pipeline.training.views import Alteration, Shuffled

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """`fitted`: a phase. `kept`: whether its weights were the best so far. `blocks` learned, from the top.

    `cached`: it learned from what was kept of frozen blocks, not from images.
    """

    fitted: Fitted
    kept: bool
    blocks: int
    cached: bool
    batch_size: int


@dataclass(frozen=True)
class _Feed:
    """`model`: what is trained, inputs to logits. `training(epoch)` gives its batches from that epoch on."""

    model: keras.Model
    training: Callable[[int], Any]
    validation: Any
    images: int  # each epoch, repeated ones too
    steps: int


def run(
    model: Classifier,
    frozen: Frozen,
    plan: Sequence[Phase],
    settings: Train,
    augment: Augment,
    *,
    logs: Path,
    checkpoint: Checkpoint,
) -> list[Trained]:
    """Train `model` in place and leave it with the best weights by validation loss.

    Raises `ModelError` if training diverges, or does not fit into the accelerator's memory at half the batch size.
    """
    classes = frozen.images.index.classes
    blocks = [recipes.blocks(phase, model.entry) for phase in plan]
    altered = [alteration(phase, settings, augment, classes) for phase in plan]
    keeps = [frozen.worth_keeping(number, its_own) for number, its_own in zip(blocks, altered, strict=True)]
    done: list[Trained] = []
    for fitted in checkpoint.finished(model.whole.variables):
        done.append(_judged(fitted, done, blocks[len(done)], keeps[len(done)], settings.batch_size))
        frozen.trained(blocks[len(done) - 1])
    for i in range(len(done), len(plan)):
        # What phases to come take of blocks that no phase before them touches is computed in the same pass.
        wanted = [
            blocks[j]
            for j in range(i, len(plan))
            if keeps[j] and altered[j] == altered[i] and blocks[j] >= max(blocks[i:j], default=0)
        ]
        if i == 0 and settings.weights != registry.NONE:
            features = frozen.given([0, *wanted], altered[0]).learned
            assembly.standardise(model, np.concatenate([features.view(view) for view in range(len(features))]))
        before = [np.array(variable) for variable in model.whole.variables]
        shares = assembly.unfreeze(
            model, blocks[i], batch_norm=plan[i].batch_norm == "trained", decay=plan[i].layer_decay
        )
        batch_size = checkpoint.batch_size or settings.batch_size  # that of a phase that was interrupted
        kept = wanted if keeps[i] else []
        attempt = functools.partial(_fit, model, frozen, plan[i], settings, altered[i], kept, shares)
        try:
            fitted = attempt(batch_size, logs, checkpoint)
        except OutOfMemory:
            if batch_size == 1:
                raise
            batch_size //= 2
            logger.warning("%s: out of memory, so batches are halved to %d images", plan[i].name, batch_size)
            _restore(model, before)
            fitted = attempt(batch_size, logs, checkpoint)
        found = _judged(fitted, done, blocks[i], keeps[i], batch_size)
        if found.kept:
            frozen.trained(blocks[i])
        else:
            _restore(model, before)
        done.append(found)
        checkpoint.finish(fitted, model.whole.variables)
    return done


def alteration(phase: Phase, settings: Train, augment: Augment, classes: Sequence[str]) -> Alteration:
    chosen = augment if phase.augment is None else augment.model_copy(update={"preset": phase.augment})
    return views.alteration(settings.views, chosen, classes)


def _fit(
    model: Classifier,
    frozen: Frozen,
    phase: Phase,
    settings: Train,
    altered: Alteration,
    wanted: Sequence[int],
    shares: Mapping[str, float],
    batch_size: int,
    logs: Path,
    checkpoint: Checkpoint,
) -> Fitted:
    images = frozen.images
    learned, checked = images.roles.learned, images.roles.checked
    numbers = np.array([item.number for item in learned])
    weights = views.class_weights(numbers, len(images.index.classes), balanced=phase.class_balance == "weights")
    blocks = recipes.blocks(phase, model.entry)
    count = len(learned)
    steps = max(1, count // batch_size)
    balanced = phase.class_balance == "sampling"
    if wanted:
        given = frozen.given(wanted, altered)
        trained = model.cut(blocks).upper if blocks else model.head
        validation: Any = (given.checked.view(0), np.array([item.number for item in checked]))
        # An epoch on features takes every view of every image: it costs next to nothing.
        passes = 1 if blocks else len(given.learned)
        count *= passes
        steps = max(1, count // batch_size)

        def training(epoch: int) -> Any:
            return Shuffled(
                given.learned,
                numbers,
                weights,
                batch_size=batch_size,
                seed=settings.seed,
                passes=passes,
                balanced=balanced,
                epoch=epoch,
            )
    else:
        pieces = model.cut(blocks)
        pictures = keras.Input(model.whole.input.shape[1:], dtype="uint8")
        trained = views.altering(keras.Model(pictures, pieces.upper(pieces.lower(pictures))), altered)
        held_out = images.of_view(0, images.roles.val, altered, "val")
        validation = views.unaltered(held_out, len(checked), altered, batch_size=batch_size)
        size = min(batch_size, count)

        def training(epoch: int) -> Any:
            endless = images.endless(altered, batch_size=size, balanced=balanced, first_epoch=epoch)
            return views.online(endless, weights, altered)

    return fitting.fit(
        trained,
        phase,
        training,
        validation,
        images=count,
        steps=steps,
        batch_size=batch_size,
        label_smoothing=settings.label_smoothing,
        rates=shares,
        logs=logs,
        checkpoint=checkpoint,
    )


def _judged(fitted: Fitted, before: Sequence[Trained], blocks: int, cached: bool, batch_size: int) -> Trained:
    best = min((phase.fitted.best_loss for phase in before), default=np.inf)
    return Trained(fitted, fitted.best_loss < best, blocks, cached, batch_size)


def _restore(model: Classifier, values: Sequence[Any]) -> None:
    for variable, value in zip(model.whole.variables, values, strict=True):
        variable.assign(value)
