from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.training import checkpoints, optimizers, rate_finder, schedules
from pipeline.training.losses import SmoothedCrossentropy
from tests.pipeline.training import problem
from tests.pipeline.training.problem import PHASE, Epochs, network

RATES = np.geomspace(1e-6, 1, 100)


def curve(middle: float, end: float, noise: float = 0.0) -> np.ndarray:
    """A loss that falls from 2 to 0.5 around the rate `middle` and explodes from `end` on."""
    position, random = np.log10(RATES), np.random.default_rng(0)
    fall = 0.5 + 1.5 / (1 + np.exp(6 * (position - np.log10(middle))))
    return fall + np.maximum(0, position - np.log10(end)) * 8 + noise * random.normal(size=100)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.15])
@pytest.mark.parametrize(("middle", "end"), [(1e-3, 1e-1), (1e-4, 1e-2), (1e-2, 0.5)])
def test_the_rate_is_where_the_loss_falls_fastest(middle: float, end: float, noise: float) -> None:
    rate, smoothed = rate_finder.choose(RATES, curve(middle, end, noise), steps=100, name="head")

    assert middle / 3 < rate < middle * 3
    assert len(smoothed) == 100


def test_the_rate_stays_away_from_the_explosion() -> None:
    """The loss falls slowly, then in one step right before it explodes."""
    losses = np.full(100, 2.0) - 0.002 * np.arange(100)
    losses[69:72], losses[72:] = 1.0, 9.0
    rate, _ = rate_finder.choose(RATES, losses, steps=100, name="head")

    assert rate <= RATES[72] / 10


@pytest.mark.parametrize(
    "losses",
    [np.full(100, 0.7), 0.7 + 0.2 * np.random.default_rng(3).normal(size=100), np.geomspace(0.7, 4, 40), [0.7, 0.8]],
    ids=["flat", "noise", "only rises", "ends at once"],
)
def test_a_loss_that_falls_nowhere_is_an_error(losses: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"Phase head: expected the loss to fall.*train\.phases\.head\.learning_rate"):
        rate_finder.choose(RATES[: len(losses)], losses, steps=100, name="head")


@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_sgd_gets_a_rate_that_learns_and_is_below_its_limit(tmp_path: Path, scale: float) -> None:
    """The Hessian of softmax regression on two classes is at most 1/2 the second moment of the inputs, and Nesterov's
    method is stable up to (2 + 2 m) / (1 + 2 m) = 1.36 over it; it learns slowly below a thousandth of that. Rates
    of the test are 2.07 apart.
    """
    inputs = scale * problem.linear(problem.ROWS)[0]
    limit = 1.36 / (0.5 * np.linalg.eigvalsh(inputs.T @ inputs / len(inputs)).max())
    phase = replace(PHASE, learning_rate="find", weight_decay=0.0, epochs=15, patience=15)

    fitted = problem.fit(network(), phase, tmp_path, training=lambda first: Epochs(first, scale))

    assert limit / 1000 < fitted.learning_rate < 2.07 * limit
    assert fitted.range_test[0][0] == pytest.approx(1e-6)
    assert len(fitted.range_test) <= 20
    assert min(fitted.curves["loss"]) < 0.5 * fitted.range_test[0][1]


def test_model_and_optimizer_are_left_as_they_were() -> None:
    model = network(hidden=8, dropout=0.5)
    phase = replace(PHASE, optimizer="adamw", learning_rate="find", ema=0.9, schedule="cosine", warmup=0.1)
    model.compile(
        optimizer=optimizers.of(phase, peak=0.3, schedule=schedules.of(phase, 4), rates={}),
        loss=SmoothedCrossentropy(0.0),
    )
    model.optimizer.build(model.trainable_variables)
    model.train_on_batch(*Epochs()[0])
    state = [*model.variables, *model.optimizer.variables]
    before = checkpoints.values(state)

    rate_finder.find(model, Epochs(), name="head", steps=4, check=lambda: None)

    for variable, value in zip(state, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value, err_msg=variable.path)


def test_a_phase_with_the_rate_found_is_the_phase_with_that_rate(tmp_path: Path) -> None:
    phase = replace(PHASE, optimizer="adamw", learning_rate="find", schedule="cosine", warmup=0.1, epochs=3)
    found = problem.fit(network(hidden=8, dropout=0.3), phase, tmp_path)
    given = problem.fit(network(hidden=8, dropout=0.3), replace(phase, learning_rate=found.learning_rate), tmp_path)

    for curve, values in given.curves.items():
        assert found.curves[curve] == pytest.approx(values, rel=1e-6), curve
    assert given.range_test == ()


def test_a_model_that_cannot_learn_is_an_error_and_keeps_its_weights(tmp_path: Path) -> None:
    """All inputs are zero and there is no bias."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False)(inputs))
    before = model.get_weights()

    with pytest.raises(ModelError, match=r"it went from 0\.693 to 0\.693"):
        problem.fit(model, replace(PHASE, learning_rate="find"), tmp_path, training=lambda first: Epochs(first, 0.0))
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
