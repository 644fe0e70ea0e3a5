from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipeline import progress
from pipeline.errors import ModelError
from pipeline.training import checkpoints, fitting
from pipeline.training.checkpoints import Checkpoint
from pipeline.training.fitted import CURVES
from pipeline.training.fitting import OutOfMemory
from pipeline.training.losses import SmoothedCrossentropy
from tests.pipeline.training import problem
from tests.pipeline.training.problem import PHASE, Epochs, linear, network

CONTRADICTED = (linear(32, seed=1)[0], 1 - linear(32, seed=1)[1])


class Failing(keras.layers.Layer):
    """Raises when it is called for real."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor(inputs.shape)

    def call(self, inputs: Any) -> Any:
        raise self.error


class ResourceExhaustedError(Exception):
    """As TensorFlow's, by its name."""


def test_learning_shows_in_the_curves_and_in_tensorboard(tmp_path: Path) -> None:
    fitted = problem.fit(network(), PHASE, tmp_path)

    assert {name: len(curve) for name, curve in fitted.curves.items()} == dict.fromkeys(CURVES, 5)
    assert fitted.curves["loss"][-1] < fitted.curves["loss"][0]
    assert fitted.best_loss == min(fitted.curves["val_loss"])
    assert fitted.learning_rate == 0.05
    assert fitted.seconds > 0
    assert fitted.images_per_second > 64 / fitted.seconds
    assert list((tmp_path / "logs/head").rglob("events.out.tfevents*"))


def test_the_best_weights_stay_and_patience_ends_the_phase(tmp_path: Path) -> None:
    """The validation labels contradict the training labels: the first epoch is the best one."""
    model = network()
    fitted = problem.fit(model, replace(PHASE, learning_rate=0.5, epochs=40), tmp_path, validation=CONTRADICTED)

    losses = fitted.curves["val_loss"]
    assert len(losses) == 4
    assert fitted.best_epoch == 0
    kept = float(SmoothedCrossentropy(0.0)(CONTRADICTED[1], model(CONTRADICTED[0])))
    assert kept == pytest.approx(min(losses), rel=1e-4)
    assert kept < losses[-1]


def test_the_learning_rate_of_each_epoch_follows_the_schedule(tmp_path: Path) -> None:
    """20 steps, 2 of warm-up; the last step of epoch e is number 4 e + 3."""
    phase = replace(PHASE, learning_rate=0.1, schedule="cosine", warmup=0.1, patience=9)
    fitted = problem.fit(network(), phase, tmp_path)

    expected = [0.05 * (1 + np.cos(np.pi * (4 * epoch + 1) / 18)) for epoch in range(5)]
    assert fitted.curves["learning_rate"] == pytest.approx(expected, rel=1e-5)


def test_a_plateau_divides_the_learning_rate_by_five(tmp_path: Path) -> None:
    phase = replace(PHASE, learning_rate=0.5, schedule="plateau", patience=4, epochs=40)
    fitted = problem.fit(network(), phase, tmp_path, validation=CONTRADICTED)

    assert fitted.best_epoch == 0
    assert fitted.curves["learning_rate"] == pytest.approx([0.5, 0.5, 0.5, 0.1, 0.1])


def test_multipliers_hold_layers_back(tmp_path: Path) -> None:
    model, phase = network(hidden=8), replace(PHASE, weight_decay=0.1)
    layer = model.get_layer("hidden")
    before = [weight.numpy() for weight in layer.weights]
    logits = model.get_layer("logits").kernel.numpy()

    problem.fit(model, phase, tmp_path, rates={weight.path: 0.0 for weight in layer.weights})

    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert np.abs(model.get_layer("logits").kernel.numpy() - logits).max() > 0.01


def test_averaged_weights_are_validated_and_kept(tmp_path: Path) -> None:
    """Against softmax regression by hand: Nesterov steps, and averages that keep min(0.9, (1 + t) / (10 + t))."""
    model = network()
    phase = replace(PHASE, learning_rate=0.02, weight_decay=0.0, ema=0.9, epochs=3)
    weights = [np.float64(weight) for weight in model.get_weights()]
    fitted = problem.fit(model, phase, tmp_path)

    moments, averages, step = [np.zeros_like(weight) for weight in weights], list(weights), 0
    for epoch in range(3):
        batches = Epochs(epoch)
        for rows, classes, _ in (batches[i] for i in range(len(batches))):
            logits = rows @ weights[0] + weights[1]
            errors = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(2)[classes]
            for i, gradient in enumerate([rows.T @ errors / len(rows), errors.mean(axis=0)]):
                moments[i] = 0.9 * moments[i] - 0.02 * gradient
                weights[i] = weights[i] + 0.9 * moments[i] - 0.02 * gradient
                kept = min(0.9, (1 + step) / (10 + step))
                averages[i] = kept * averages[i] + (1 - kept) * weights[i]
            step += 1
    assert fitted.best_epoch == 2
    for weight, average in zip(model.get_weights(), averages, strict=True):
        np.testing.assert_allclose(weight, average, atol=1e-5)
    rows, classes = linear(32, seed=1)
    assert float(SmoothedCrossentropy(0.0)(classes, model(rows))) == pytest.approx(fitted.best_loss, rel=1e-4)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains(tmp_path: Path, precision: str) -> None:
    keras.config.set_dtype_policy(precision)
    try:
        model = network(hidden=8)
    finally:
        keras.config.set_dtype_policy("float32")
    phase = replace(PHASE, optimizer="adamw", learning_rate=0.03, ema=0.9, clip_norm=5.0, epochs=8)
    fitted = problem.fit(model, phase, tmp_path)

    assert isinstance(model.optimizer, keras.mixed_precision.LossScaleOptimizer) == (precision == "mixed_float16")
    assert fitted.best_loss < 0.7 * fitted.curves["val_loss"][0]


def test_a_loss_that_is_no_number_ends_training_with_the_setting_to_change(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"loss became (nan|inf) in epoch 1.*train\.phases\.head\.learning_rate"):
        problem.fit(
            network(), replace(PHASE, learning_rate=1e30), tmp_path, training=lambda first: Epochs(first, scale=1e20)
        )


def test_a_metric_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected the metric val_loss"):
        fitting.fit(
            network(),
            PHASE,
            Epochs,
            None,
            images=64,
            steps=4,
            batch_size=16,
            label_smoothing=0.0,
            rates={},
            logs=tmp_path,
            checkpoint=None,
        )


def test_too_little_memory_leaves_the_weights_and_no_checkpoint_of_the_phase(tmp_path: Path) -> None:
    class Exhausting(Epochs):
        def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
            if self.epoch == 1:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")  # as JAX says it
            return super().__getitem__(index)

    model, checkpoint = network(hidden=4), Checkpoint(tmp_path / "checkpoint", "")
    before = checkpoints.values(model.variables)
    with pytest.raises(OutOfMemory, match=r"batches of 16.*train\.batch_size"):
        problem.fit(model, PHASE, tmp_path, training=Exhausting, checkpoint=checkpoint)

    for value, expected in zip(checkpoints.values(model.variables), before, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert checkpoint.batch_size is None


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends wrap what a layer raises")
def test_tensorflows_error_of_too_little_memory_is_told_apart(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(Failing(ResourceExhaustedError("OOM"))(inputs)))

    with pytest.raises(OutOfMemory):
        problem.fit(model, PHASE, tmp_path)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    class Broken(Epochs):
        def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        problem.fit(network(), PHASE, tmp_path, training=Broken)


def test_the_handler_of_sigterm_is_as_before(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    problem.fit(network(), replace(PHASE, epochs=1), tmp_path)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_training_in_another_thread_handles_no_signals(tmp_path: Path) -> None:
    found: list[Any] = []
    model = network()
    thread = threading.Thread(target=lambda: found.append(problem.fit(model, replace(PHASE, epochs=1), tmp_path)))
    thread.start()
    thread.join()
    assert len(found) == 1


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pipeline.progress"]


def test_progress_is_one_readable_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", math.inf)
    with caplog.at_level(logging.INFO, logger="pipeline.progress"):
        problem.fit(network(), PHASE, tmp_path)

    first, last = lines(caplog)
    assert first.startswith("head 1/5: loss ")
    assert "images/s" in first
    assert last.startswith("head 5/5: loss ")
    assert last.endswith("(best epoch 5)")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    return


@pytest.mark.usefixtures("impatient")
def test_long_epochs_show_progress_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pipeline.progress"):
        problem.fit(network(), replace(PHASE, epochs=2), tmp_path)

    assert [line.split(",")[0] for line in lines(caplog) if "step" in line] == [
        f"head {epoch}/2: step {step} of 4" for epoch in (1, 2) for step in (1, 2, 3, 4)
    ]
    assert "images/s, at most" in lines(caplog)[1]
