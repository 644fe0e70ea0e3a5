"""The phases of a recipe, each on what is frozen below the blocks that learn in it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.backbones import registry
from pipeline.settings import Augment, Train
from pipeline.training import checkpoints, feeds, fitting, recipes, views
from pipeline.training import classifier as assembly
from pipeline.training.checkpoints import Checkpoint
from pipeline.training.classifier import POOLED, Classifier
from pipeline.training.devices import Devices
from pipeline.training.feeds import Feed
from pipeline.training.fitted import Fitted
from pipeline.training.fitting import OutOfMemory
from pipeline.training.frozen import Frozen
from pipeline.training.recipes import Phase
from pipeline.training.views import Alteration

logger = logging.getLogger(__name__)

_AT_ONCE = 16  # steps of a head on features, each of which takes a tenth of what calling it from Python takes


@dataclass(frozen=True)
class Planned:
    """`blocks` learn, counted from the top. `cached`: from what is kept of the frozen ones, not from images."""

    phase: Phase
    blocks: int
    alteration: Alteration
    cached: bool


def plan(phases: Sequence[Phase], frozen: Frozen, settings: Train, augment: Augment) -> list[Planned]:
    planned = []
    for phase in phases:
        chosen = augment if phase.augment is None else augment.model_copy(update={"preset": phase.augment})
        altered = views.alteration(settings.views, chosen, frozen.images.index.classes)
        blocks = recipes.blocks(phase, frozen.classifier.entry)
        planned.append(Planned(phase, blocks, altered, frozen.worth_keeping(blocks, altered)))
    return planned


@dataclass(frozen=True)
class Session:
    """What all phases of one training share."""

    model: Classifier
    frozen: Frozen
    settings: Train
    logs: Path
    checkpoint: Checkpoint
    devices: Devices


def run(session: Session, planned: Sequence[Planned]) -> list[Fitted]:
    """Train the model in place and leave it with the weights of the last phase that is kept.

    Raises `ModelError` if training diverges, or does not fit into the accelerator's memory at half the batch size.
    """
    model, frozen, checkpoint = session.model, session.frozen, session.checkpoint
    done = checkpoint.finished(model.whole.variables)
    for fitted, its in zip(done, planned, strict=False):
        if fitted.kept:
            frozen.trained(its.blocks)
    for i in range(len(done), len(planned)):
        now, wanted = planned[i], _wanted(planned, i)
        if i == 0 and session.settings.weights != registry.NONE:
            features = frozen.given([0, *wanted], now.alteration).learned[POOLED]
            assembly.standardise(model, *features.moments())
        before = checkpoints.values(model.whole.variables)
        # That of a phase that was interrupted, or what was asked for.
        batch_size = checkpoint.batch_size or session.devices.batch_size(session.settings.batch_size)
        try:
            fitted = _fit(session, now, wanted, batch_size, first=not done)
        except OutOfMemory:
            smaller = session.devices.batch_size(batch_size // 2)
            if not 0 < smaller < batch_size or session.devices.count > 1:  # the other workers have not noticed
                raise
            logger.warning("%s: out of memory, so batches are halved to %d images", now.phase.name, smaller)
            fitted = _fit(session, now, wanted, smaller, first=not done)
        if fitted.kept:
            frozen.trained(now.blocks)
        else:
            checkpoints.assign(model.whole.variables, before)
        checkpoint.finish(fitted, model.whole.variables)
        done.append(fitted)
    return done


def answers(
    session: Session, planned: Sequence[Planned], fitted: Sequence[Fitted]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits [N, K] of the validation images after `run`, and their classes [N]: from what is kept of frozen blocks, if
    some phase has made it kept and no phase has changed it since, else from images."""
    learned = max((its.blocks for its, found in zip(planned, fitted, strict=True) if found.kept), default=0)
    kept = [its for its in planned if its.cached and its.blocks >= learned]
    chosen = min(kept, key=lambda its: its.blocks) if kept else planned[-1]
    batch_size = session.devices.batch_size(session.settings.batch_size)
    return _feed(session, chosen, [chosen.blocks], batch_size).answers(batch_size)


def _wanted(planned: Sequence[Planned], i: int) -> list[int]:
    """Cuts, that of phase i first: what later phases take of blocks that no phase before them touches is computed in
    the same pass. Empty if phase i reads images."""
    if not planned[i].cached:
        return []
    return [
        its.blocks
        for j, its in enumerate(planned)
        if j >= i
        and its.cached
        and its.alteration == planned[i].alteration
        and its.blocks >= max((between.blocks for between in planned[i:j]), default=0)
    ]


def _fit(session: Session, now: Planned, wanted: Sequence[int], batch_size: int, *, first: bool) -> Fitted:
    model, settings, phase = session.model, session.settings, now.phase
    shares = assembly.unfreeze(model, now.blocks, batch_norm=phase.batch_norm == "trained", decay=phase.layer_decay)
    feed = _feed(session, now, wanted, batch_size)
    losses = None if first else feed.losses(batch_size, settings.label_smoothing)
    fitted = fitting.fit(
        feed.model,
        phase,
        feed.training,
        feed.validation,
        images=feed.images,
        steps=feed.steps,
        batch_size=batch_size,
        label_smoothing=settings.label_smoothing,
        rates=shares,
        logs=session.logs,
        checkpoint=session.checkpoint,
        devices=session.devices,
        steps_at_once=_AT_ONCE if now.blocks == 0 and session.devices.kind == "alone" else 1,
    )
    if losses is None:
        return fitted
    return replace(fitted, kept=better(losses, feed.losses(batch_size, settings.label_smoothing)))


def _feed(session: Session, now: Planned, wanted: Sequence[int], batch_size: int) -> Feed:
    model, images = session.model, session.frozen.images
    if now.cached:
        given = session.frozen.given(wanted, now.alteration)
        seed = session.settings.seed
        return feeds.kept(model, now.blocks, given, images, now.phase, batch_size=batch_size, seed=seed)
    return feeds.online(
        model, now.blocks, now.alteration, images, now.phase, batch_size=batch_size, devices=session.devices
    )


def better(before: NDArray[np.float32], after: NDArray[np.float32]) -> bool:
    """Whether the mean loss of the same images falls by more than its standard error.

    Otherwise the weights before are kept, which know less of the training images (the rule of one standard error,
    Breiman et al. 1984): with some dozens of validation images the best of many epochs looks better by chance.
    """
    gains = before.astype(np.float64) - after
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return bool(gains.mean() > error)
