"""The loss and the metric of every phase. K counts classes, N the images of a batch."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


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
