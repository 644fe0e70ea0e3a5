"""One phase of training: Keras's `fit` under watch. The best weights by validation loss are the ones that stay."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline.errors import ModelError

logger = logging.getLogger(__name__)

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy")
LINE_EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Phase:
    """Learning curves, one value per epoch. `best_epoch` counts from 0. `seconds`: of the whole phase."""

    name: str
    curves: dict[str, list[float]]
    best_epoch: int
    seconds: float

    @property
    def best_loss(self) -> float:
        """Validation loss of the weights that were kept."""
        return self.curves["val_loss"][self.best_epoch]


class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits [N, K] with class numbers [N], whose targets are 1 - s + s / K for the class and
    s / K for the others (Szegedy et al. 2016), or with the probabilities [N, K] of mixed images, smoothed likewise.
    Keras smooths one-hot labels only.

    Without smoothing, a few hundred images are soon fitted without error; then the validation loss measures little
    but overconfidence, and AdamW blows the vanishing gradients up to full steps in random directions.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__(name="smoothed_crossentropy")
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        classes = ops.shape(y_pred)[-1]
        targets = y_true
        if not _are_probabilities(y_true, y_pred):
            targets = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), classes, dtype=y_pred.dtype)
        targets = targets * (1 - self.smoothing) + self.smoothing / classes
        return ops.categorical_crossentropy(targets, y_pred, from_logits=True)


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Float32 [N]: whether the largest logit is that of the class, or of the class that a mixed image has most of."""
    classes = ops.argmax(y_true, axis=-1) if _are_probabilities(y_true, y_pred) else ops.reshape(y_true, (-1,))
    hits = ops.equal(ops.cast(classes, "int32"), ops.cast(ops.argmax(y_pred, axis=-1), "int32"))
    return ops.cast(hits, "float32")


def _are_probabilities(y_true: Any, y_pred: Any) -> bool:
    return len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]


class Watch(keras.callbacks.Callback):
    """Early stopping that fails loudly, and one log line every few seconds.

    Keras's own EarlyStopping only warns when its metric is missing, and TerminateOnNaN ends a run as if all were well.
    """

    def __init__(self, name: str, *, images: int, epochs: int, patience: int) -> None:
        super().__init__()
        self.name, self.images, self.epochs, self.patience = name, images, epochs, patience
        self.curves: dict[str, list[float]] = {curve: [] for curve in CURVES}
        self.best_epoch = -1
        self.best_weights: list[NDArray[Any]] = []
        self.line_at = -np.inf

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for curve in CURVES:
            if curve not in (logs or {}):
                raise ModelError(
                    f"Phase {self.name}: expected the metric {curve}, Keras reported {sorted(logs or {})}.",
                    fix="give the phase training and validation images",
                )
            value = float((logs or {})[curve])
            if not np.isfinite(value):
                raise ModelError(
                    f"Phase {self.name}: {curve} became {value} in epoch {epoch + 1}.",
                    fix=f"lower train.{self.name}.learning_rate",
                )
            self.curves[curve].append(value)
        losses = self.curves["val_loss"]
        if self.best_epoch < 0 or losses[-1] < losses[self.best_epoch]:
            self.best_epoch = epoch
            self.best_weights = self.model.get_weights()
        self.model.stop_training = epoch - self.best_epoch >= self.patience
        self._log(epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model.set_weights(self.best_weights)

    def _log(self, epoch: int) -> None:
        now = time.monotonic()
        last = self.model.stop_training or epoch + 1 == self.epochs
        if last or now - self.line_at >= LINE_EVERY_SECONDS:
            self.line_at = now
            logger.info(
                "%s %d/%d: loss %.3f, accuracy %.3f, validation loss %.3f, accuracy %.3f, %.0f images/s%s",
                *(self.name, epoch + 1, self.epochs, *(self.curves[curve][-1] for curve in CURVES)),
                self.images / max(now - self.began, 1e-9),
                f" (best epoch {self.best_epoch + 1})" if last else "",
            )


def fit(
    model: keras.Model,
    training: Any,
    validation: Any,
    optimizer: keras.optimizers.Optimizer,
    watch: Watch,
    *,
    batch_size: int,
    label_smoothing: float,
    logs: Path,
    steps: int | None = None,
) -> Phase:
    """Train `model` (inputs to logits) and leave it with its best weights.

    Args:
        training: what Keras takes as x: batches of (inputs, class int64 or probabilities float32, weight float32).
        validation: batches of (inputs, class), or the two arrays, which are read `batch_size` rows at a time. It is
            not weighted: weights of rare classes would leave the early stopping to a handful of images.
        logs: folder for TensorBoard, one subfolder per phase.
        steps: batches per epoch where `training` is endless.

    Raises:
        ModelError: a curve is missing or not finite.
    """
    start = time.monotonic()
    model.compile(
        optimizer=optimizer,
        loss=SmoothedCrossentropy(label_smoothing),
        metrics=[keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")],
        jit_compile="auto",
    )
    board = keras.callbacks.TensorBoard(str(logs / watch.name), write_graph=False, profile_batch=0)
    model.fit(
        training,
        validation_data=validation,
        validation_batch_size=batch_size if isinstance(validation, tuple) else None,
        epochs=watch.epochs,
        steps_per_epoch=steps,
        shuffle=False,  # `training` is shuffled as the seed says
        callbacks=[watch, board],
        verbose=0,
    )
    return Phase(watch.name, watch.curves, watch.best_epoch, time.monotonic() - start)
