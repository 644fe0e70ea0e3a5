from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from pipeline.training import optimizers
from pipeline.training.recipes import Phase
from pipeline.training.schedules import Schedule

STEADY = Schedule(100, 0, falls=False)
SGD = Phase("p", optimizer="sgd", weight_decay=0.01)
ADAMW = replace(SGD, optimizer="adamw")


def variables(kernel: float = 1.0, bias: float = 1.0) -> list[keras.Variable]:
    return [keras.Variable(kernel, name="kernel"), keras.Variable(bias, name="bias")]


def make(phase: Phase, *, schedule: Schedule = STEADY, rates: dict[str, float] | None = None) -> Any:
    return optimizers.of(phase, peak=0.1, schedule=schedule, rates=rates or {})


def step(optimizer: Any, trained: list[keras.Variable], *gradients: float) -> list[float]:
    tensors = [keras.ops.convert_to_tensor(np.float32(gradient)) for gradient in gradients]
    if keras.backend.backend() == "jax":  # as Keras's training does it there
        optimizer.build(trained)
        state = [variable.value for variable in optimizer.variables]
        stepped = optimizer.stateless_apply(state, tensors, [variable.value for variable in trained])
        for variable, value in zip([*trained, *optimizer.variables], [*stepped[0], *stepped[1]], strict=True):
            variable.assign(value)
    else:
        optimizer.apply(tensors, trained)
    return [float(variable.numpy()) for variable in trained]


def test_sgd_takes_nesterov_steps_after_a_decay_of_kernels_only() -> None:
    """Rate 0.1, momentum 0.9, gradient 0.5. Kernel: 1 - 0.001 - 0.095, then * 0.999 - 0.0855 - 0.05."""
    optimizer, trained = make(SGD), variables()

    assert step(optimizer, trained, 0.5, 0.5) == pytest.approx([0.904, 0.905])
    assert step(optimizer, trained, 0.5, 0.5) == pytest.approx([0.904 * 0.999 - 0.1355, 0.905 - 0.1355])


def test_adamw_takes_a_first_step_of_the_rate_after_a_decay_of_kernels_only() -> None:
    optimizer, trained = make(ADAMW), variables()

    assert step(optimizer, trained, 0.5, -3.0) == pytest.approx([1 - 0.001 - 0.1, 1 + 0.1], rel=1e-5)


@pytest.mark.parametrize("phase", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_a_multiplier_scales_step_and_decay_of_its_variable(phase: Phase) -> None:
    """What moves at a fifth of the rate 0.1 moves as at the rate 0.02."""
    optimizer, trained = make(phase, rates={"kernel": 0.2}), variables(kernel=2.0)
    slow, expected = optimizers.of(phase, peak=0.02, schedule=STEADY, rates={}), variables(kernel=2.0)

    for gradient in (0.5, -0.2, 1.0):
        moved = step(optimizer, trained, gradient, gradient)
        assert moved[0] == pytest.approx(step(slow, expected, gradient, gradient)[0], rel=1e-6)
    assert abs(moved[1] - 1) > 2 * abs(float(expected[1].numpy()) - 1)


def test_gradients_are_clipped_by_their_norm_together() -> None:
    """The norm of (3, 4) is 5; clipped to 1 it is (0.6, 0.8), and the first Nesterov step is 1.9 times the rate."""
    optimizer, trained = make(replace(SGD, clip_norm=1.0, weight_decay=0.0)), variables()

    assert step(optimizer, trained, 3.0, 4.0) == pytest.approx([1 - 0.114, 1 - 0.152])


def test_a_norm_below_the_limit_is_left() -> None:
    optimizer, trained = make(replace(SGD, clip_norm=10.0, weight_decay=0.0)), variables()

    assert step(optimizer, trained, 3.0, 4.0) == pytest.approx([1 - 0.57, 1 - 0.76])


def test_steps_follow_the_schedule() -> None:
    optimizer, trained = make(replace(SGD, weight_decay=0.0), schedule=Schedule(4, 2, falls=True)), variables()

    assert step(optimizer, trained, 1.0, 1.0) == pytest.approx([1 - 1.9 * 0.001] * 2)
    assert optimizer.last_rate == pytest.approx(0.001)
    step(optimizer, trained, 1.0, 1.0)
    assert optimizer.last_rate == pytest.approx(0.0505)


def test_the_average_begins_fast_and_ends_at_its_decay() -> None:
    """Kept: min(0.15, (1 + t) / (10 + t)) = 0.1, then 0.15."""
    optimizer, trained = make(replace(SGD, ema=0.15)), variables()
    first = step(optimizer, trained, 0.5, 0.5)
    averages = [0.1 + 0.9 * value for value in first]
    assert [float(average.numpy()) for average in optimizer.averages] == pytest.approx(averages)

    second = step(optimizer, trained, 0.5, 0.5)

    expected = [0.15 * average + 0.85 * value for average, value in zip(averages, second, strict=True)]
    assert [float(average.numpy()) for average in optimizer.averages] == pytest.approx(expected)


def test_the_averages_change_places_with_the_weights_and_back() -> None:
    optimizer, trained = make(replace(SGD, ema=0.9)), variables()
    mine = step(optimizer, trained, 0.5, 0.25)
    averages = [float(average.numpy()) for average in optimizer.averages]

    optimizer.exchange()
    assert [float(variable.numpy()) for variable in trained] == averages
    optimizer.exchange()
    assert [float(variable.numpy()) for variable in trained] == mine
    assert step(optimizer, trained, 0.5, 0.25) != mine


@pytest.mark.parametrize("phase", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_scaled_losses_give_the_same_steps_and_overflow_is_skipped(phase: Phase) -> None:
    phase = replace(phase, ema=0.5, clip_norm=0.3)
    plain, expected = make(phase, rates={"kernel": 0.5}), variables()
    inner, trained = make(phase, rates={"kernel": 0.5}), variables()
    scaling = keras.mixed_precision.LossScaleOptimizer(inner, initial_scale=1024.0)
    wanted = step(plain, expected, 0.5, -0.25)

    assert step(scaling, trained, 512.0, -256.0) == pytest.approx(wanted, rel=1e-6)
    averages = [float(average.numpy()) for average in inner.averages]
    assert averages == pytest.approx([float(average.numpy()) for average in plain.averages], rel=1e-6)
    assert step(scaling, trained, np.inf, 1.0) == pytest.approx(wanted, rel=1e-6)
    assert [float(average.numpy()) for average in inner.averages] == averages
