"""Overfitting, underfitting, and training that ended before it was done, from the curves of the phase that was kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pipeline.backbones import registry
from pipeline.diagnosis.cause import Cause, need, ramp
from pipeline.diagnosis.facts import Facts, Phase

DOUBT = 1.645  # standard errors: one chance in twenty, one-sided
LAST_EPOCHS = 3  # over which the trend at the end is read


def find(facts: Facts) -> Iterator[Cause]:
    phase = facts.kept
    yield from _overfitting(facts, phase)
    yield from _underfitting(facts, phase)
    yield from _unfinished(facts, phase)


def _overfitting(facts: Facts, phase: Phase) -> Iterator[Cause]:
    """Score: 0 unless the gap exceeds diagnose.overfit_gap by more than chance (validation images are few), then
    0.5 at the threshold and 1 at twice it."""
    limit = facts.thresholds.overfit_gap
    training, validation = phase.accuracy[phase.best], phase.val_accuracy[phase.best]
    gap = training - validation
    error = math.sqrt(max(validation * (1 - validation), 0.01) / max(facts.val_images, 1))
    if gap - DOUBT * error <= limit:
        return
    decay, dropout = facts.plan[phase.name].weight_decay, facts.train.head.dropout
    change: dict[str, Any] = {"train.phases.every.weight_decay": _rounded(max(decay * 10, 1e-3))}
    if dropout < 0.5:
        change["train.head.dropout"] = round(min(0.5, dropout + 0.2), 2)
    if (blocks := facts.unfrozen(phase.name)) > 1:
        change[f"train.phases.{phase.name}.unfreeze.top"] = blocks - 1
    yield Cause(
        "overfitting",
        0.5 + 0.5 * ramp(gap, limit, 2 * limit),
        (
            f"Training accuracy is {training:.3f}, validation accuracy {validation:.3f} "
            f"({facts.val_images} images): a gap of {gap:.3f}, allowed is {limit:g}.",
        ),
        "Collect more different pictures; until then train fewer weights, regularise more and augment more.",
        change,
    )


def _underfitting(facts: Facts, phase: Phase) -> Iterator[Cause]:
    """Score: 0 unless training accuracy is below diagnose.underfit_accuracy, then 0.5, and 1 from 0.3 below it.

    Validation accuracy counts too where it is higher: dropout and augmentation make training the harder exam.
    """
    limit = facts.thresholds.underfit_accuracy
    reached = max(phase.accuracy[phase.best], phase.val_accuracy[phase.best])
    if reached >= limit:
        return
    *_, last = facts.plan
    blocks, most = facts.unfrozen(last), registry.get(facts.train.backbone).blocks
    change: dict[str, Any] = {}
    if not blocks:
        change["train.recipe"] = "head_then_finetune"
    elif blocks < most:
        change[f"train.phases.{last}.unfreeze.top"] = min(blocks + 2, most)
    if facts.train.head.dropout:
        change["train.head.dropout"] = 0.0
    yield Cause(
        "underfitting",
        0.5 + 0.5 * ramp(limit - reached, 0, 0.3),
        (
            f"Training accuracy reaches only {phase.accuracy[phase.best]:.3f} and validation accuracy "
            f"{phase.val_accuracy[phase.best]:.3f}; {limit:g} is expected.",
        ),
        "Let more of the backbone learn, or try another backbone; if labels are wrong or classes cannot be told apart "
        "by eye, no training helps.",
        change,
    )


def _unfinished(facts: Facts, phase: Phase) -> Iterator[Cause]:
    """Score: need x ramp of the validation loss's relative fall over the last 3 epochs, from 1 % to 20 %, if the last
    epoch that params allow was the best."""
    allowed = facts.plan[phase.name].epochs
    curve = phase.val_loss
    if len(curve) < max(allowed, LAST_EPOCHS + 1) or phase.best != len(curve) - 1:
        return
    before, after = curve[-1 - LAST_EPOCHS], curve[-1]
    fall = (before - after) / before
    yield Cause(
        "training ended too early",
        need(facts) * ramp(fall, 0.01, 0.2),
        (
            f"The last of {allowed} epochs of phase {phase.name!r} was the best, and validation loss was still falling "
            f"({before:.3f} to {after:.3f} in {LAST_EPOCHS} epochs).",
        ),
        "Allow more epochs; early stopping ends them when they no longer help.",
        {f"train.phases.{phase.name}.epochs": 2 * allowed},
    )


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
