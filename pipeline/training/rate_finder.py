"""Learning rate by a range test (Smith 2017, as fastai runs it): the rate grows from step to step, the loss tells."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.training import checkpoints, optimizers

LOWEST, HIGHEST = 1e-6, 1.0
MOST_STEPS, LEAST_STEPS = 100, 20
DIVERGED = 4.0  # times the lowest loss
WIDTH = 0.03  # standard deviation of the window that smooths the curve, as a share of all steps
BELOW_MINIMUM = 10.0  # fastai's other rule: a tenth of the rate where the loss is lowest

Curve = tuple[tuple[float, float], ...]


def find(
    model: keras.Model,
    training: Any,
    *,
    name: str,
    steps: int,
    check: Callable[[], None],
    mean: Callable[[float], float] = float,
) -> tuple[float, Curve]:
    """The rate where the loss falls fastest, and (rate, smoothed loss) of every step.

    The model, compiled with an optimizer of `optimizers`, and that optimizer are left exactly as they were.

    Args:
        training: as for `fitting.fit`. steps: batches per epoch.
        check: is called between steps; what it raises ends the test.
        mean: of a loss over all workers, which must come to the same rate.

    Raises:
        ModelError: the loss falls at no rate.
    """
    number = min(MOST_STEPS, max(LEAST_STEPS, steps))
    rates = np.geomspace(LOWEST, HIGHEST, number)
    optimizer = optimizers.within(model)
    state = [*model.variables, *model.optimizer.variables]
    before = checkpoints.values(state)
    losses: list[float] = []
    try:
        optimizer.follows.assign(0.0)
        for rate, batch in zip(rates, _batches(training), strict=False):
            optimizer.peak.assign(float(rate))
            loss = mean(float(model.train_on_batch(*batch, return_dict=True)["loss"]))
            check()
            if not np.isfinite(loss):
                break
            losses.append(loss)
            if smoothed(losses, number)[-1] > DIVERGED * smoothed(losses, number).min():
                break
    finally:
        checkpoints.assign(state, before)
    return choose(rates[: len(losses)], losses, steps=number, name=name)


def choose(rates: NDArray[np.float64], losses: Sequence[float], *, steps: int, name: str) -> tuple[float, Curve]:
    """The rate and the curve of a test that was to take `steps` but may have ended early. Raises `ModelError`.

    It is the rate of the steepest descent, and at most a tenth of the rate with the lowest loss: what looks steepest
    right before the loss explodes is chance.
    """
    if len(losses) < 3:
        raise _no_fall(name, f"it was no number after {len(losses)} steps")
    curve = smoothed(losses, steps)
    lowest = int(curve.argmin())
    # Spread of a smoothed value: a Gaussian window of width s averages about 3.5 s values.
    noise = np.std(np.asarray(losses)[: lowest + 1] - curve[: lowest + 1]) / np.sqrt(3.5 * _width(steps))
    fall = curve[0] - curve[lowest]
    if fall <= max(0.01 * abs(curve[0]), 2 * np.sqrt(2) * noise):
        raise _no_fall(name, f"it went from {curve[0]:.3f} to {curve[lowest]:.3f} at best, within its noise")
    slopes = np.gradient(curve[: lowest + 1])
    rate = min(float(rates[slopes.argmin()]), float(rates[lowest]) / BELOW_MINIMUM)
    return rate, tuple((float(rate), float(loss)) for rate, loss in zip(rates, curve, strict=True))


def smoothed(losses: Sequence[float], steps: int) -> NDArray[np.float64]:
    """Mean of the neighbours of each loss under a Gaussian window. It looks both ways: the running mean that fastai
    takes lags behind, by a factor of ten in the rate where 100 steps span six decades.
    """
    position = np.arange(len(losses))
    window = np.exp(-0.5 * ((position[:, None] - position) / _width(steps)) ** 2)
    return (window @ np.asarray(losses, np.float64)) / window.sum(axis=1)


def _width(steps: int) -> float:
    return max(1.0, WIDTH * steps)


def _batches(training: Any) -> Iterator[tuple[Any, ...]]:
    """Batches without end, as arrays that every backend takes."""
    source: Iterable[Any] = training
    if isinstance(training, keras.utils.PyDataset):
        source = (training[i % len(training)] for i in itertools.count())
    for batch in source:
        yield keras.tree.map_structure(np.asarray, batch)


def _no_fall(name: str, what: str) -> ModelError:
    return ModelError(
        f"Phase {name}: expected the loss to fall at some learning rate from {LOWEST:g} to {HIGHEST:g}, {what}.",
        fix=f"set train.phases.{name}.learning_rate to a number, for example 3e-4",
    )
