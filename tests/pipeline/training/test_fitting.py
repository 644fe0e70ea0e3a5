from __future__ import annotations

import logging
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.training import fitting
from pipeline.training.fitting import SmoothedCrossentropy, Watch
from pipeline.training.views import Shuffled


def linear(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(rows, 4)).astype(np.float32)
    return inputs, (inputs[:, 0] > 0).astype(np.int64)


def run(
    tmp_path: Path,
    *,
    rate: float = 0.05,
    epochs: int = 5,
    scale: float = 1.0,
    against: bool = False,
    validate: bool = True,
) -> tuple[keras.Model, fitting.Phase, tuple[np.ndarray, np.ndarray]]:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    rows, classes = linear(64)
    checked_rows, checked_classes = linear(32, seed=1)
    checked = (checked_rows, 1 - checked_classes if against else checked_classes)
    watch = Watch("head", images=64, epochs=epochs, patience=3)
    batches = Shuffled(scale * rows[None], classes, np.ones(2, np.float32), batch_size=16, seed=0)
    optimizer = keras.optimizers.SGD(rate)
    validation = checked if validate else None
    phase = fitting.fit(
        model, batches, validation, optimizer, watch, batch_size=16, label_smoothing=0.0, logs=tmp_path / "logs"
    )
    return model, phase, checked


@pytest.mark.parametrize(
    ("smoothing", "expected"),
    [(0.0, -np.log(0.75)), (0.2, -(0.9 * np.log(0.75) + 0.1 * np.log(0.25)))],
    ids=["plain", "smoothed"],
)
def test_the_loss_of_known_probabilities(smoothing: float, expected: float) -> None:
    logits = np.log([[0.25, 0.75], [0.75, 0.25]]).astype(np.float32)

    loss = SmoothedCrossentropy(smoothing)(np.array([1, 0]), logits)

    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_mixed_images() -> None:
    """Targets [0.3, 0.7] become 0.8 * [0.3, 0.7] + 0.1 = [0.34, 0.66]."""
    logits = np.log([[0.25, 0.75]]).astype(np.float32)

    loss = SmoothedCrossentropy(0.2)(np.array([[0.3, 0.7]], np.float32), logits)

    assert float(loss) == pytest.approx(-(0.34 * np.log(0.25) + 0.66 * np.log(0.75)), rel=1e-5)


def test_accuracy_of_classes_and_of_mixed_images() -> None:
    logits = np.array([[2, 1, 0], [0, 1, 2], [0, 3, 1]], np.float32)  # classes 0, 2 and 1
    mixed = np.array([[0.4, 0.6, 0], [0.1, 0, 0.9], [0, 1, 0]], np.float32)

    assert np.array(fitting.accuracy(np.array([0, 1, 1]), logits)).tolist() == [1, 0, 1]
    assert np.array(fitting.accuracy(np.array([[0], [1], [1]]), logits)).tolist() == [1, 0, 1]
    assert np.array(fitting.accuracy(mixed, logits)).tolist() == [0, 1, 1]


def test_weights_of_images_weigh_their_loss() -> None:
    logits = np.log([[0.5, 0.5], [0.75, 0.25]]).astype(np.float32)

    loss = SmoothedCrossentropy(0.0)(np.array([0, 0]), logits, sample_weight=np.array([2.0, 0.0], np.float32))

    assert float(loss) == pytest.approx(np.log(2), rel=1e-5)  # mean of 2 ln 2 and 0


def test_learning_shows_in_the_curves_and_in_tensorboard(tmp_path: Path) -> None:
    _, phase, _ = run(tmp_path)

    assert {name: len(curve) for name, curve in phase.curves.items()} == dict.fromkeys(fitting.CURVES, 5)
    assert phase.curves["loss"][-1] < phase.curves["loss"][0]
    assert phase.best_loss == min(phase.curves["val_loss"])
    assert list((tmp_path / "logs/head").rglob("events.out.tfevents*"))


def test_the_best_weights_stay_and_patience_ends_the_phase(tmp_path: Path) -> None:
    """The validation labels contradict the training labels: the first epoch is the best one."""
    model, phase, (rows, classes) = run(tmp_path, rate=0.5, epochs=40, against=True)

    losses = phase.curves["val_loss"]
    assert len(losses) == 4
    assert phase.best_epoch == 0
    kept = float(SmoothedCrossentropy(0.0)(classes, model(rows)))
    assert kept == pytest.approx(min(losses), rel=1e-4)
    assert kept < losses[-1]


def test_a_loss_that_is_no_number_ends_training_with_the_setting_to_change(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"loss became (nan|inf) in epoch 1.*train\.head\.learning_rate"):
        run(tmp_path, rate=1e30, scale=1e20)


def test_a_metric_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected the metric val_loss"):
        run(tmp_path, validate=False)


def test_progress_is_one_readable_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pipeline.training.fitting"):
        run(tmp_path)

    first, last = caplog.messages
    assert first.startswith("head 1/5: loss ")
    assert "images/s" in first
    assert last.startswith("head 5/5: loss ")
    assert last.endswith("(best epoch 5)")
