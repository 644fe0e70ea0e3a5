"""How the learning rate moves: by step as a share of the highest rate, and by epoch on a plateau."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras import ops

from pipeline.training.recipes import Phase

START = 0.01  # share of the highest rate that a warm-up starts from
PLATEAU_DIVISOR = 5.0


@dataclass(frozen=True)
class Schedule:
    """`steps`: of all epochs; `warmup`: steps of them in which the rate rises linearly from a hundredth.

    After the warm-up the rate is constant or, with `falls`, follows half a cosine to zero (Loshchilov & Hutter 2017).
    """

    steps: int
    warmup: int
    falls: bool

    def __call__(self, step: Any) -> Any:
        """Float32 share of the highest rate at `step`, a number or an integer tensor; the first step is 0."""
        step = ops.cast(step, "float32")
        rising = START + (1 - START) * step / max(self.warmup, 1)
        gone = ops.clip((step - self.warmup) / max(self.steps - self.warmup, 1), 0.0, 1.0)
        later = 0.5 * (1 + ops.cos(math.pi * gone)) if self.falls else ops.ones_like(step)
        return ops.where(step < self.warmup, rising, later)


def of(phase: Phase, steps: int) -> Schedule:
    """The schedule of a phase with `steps` per epoch. A plateau's cuts come on top, by `cuts`."""
    total = phase.epochs * steps
    warmup = max(1, round(phase.warmup * total)) if phase.warmup else 0
    return Schedule(total, warmup, falls=phase.schedule == "cosine")


def cuts(losses: Sequence[float], patience: int) -> int:
    """How often a plateau has divided the rate by five: each time that `patience` // 2 epochs (at least one) went by
    without a validation loss below the lowest, counted anew after each cut.
    """
    wait = max(1, patience // 2)
    best, since, number = math.inf, 0, 0
    for loss in losses:
        best, since = (loss, 0) if loss < best else (best, since + 1)
        if since == wait:
            number, since = number + 1, 0
    return number
