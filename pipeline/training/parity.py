"""The proof that a model in another form gives the same answers as the one that was trained.

Images: uint8 [N, S, S, 3]. Answers: probabilities, float32 [N, classes].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

TOLERANCE = 1e-4  # largest difference of a probability between two forms of one model


def check(
    form: str, trained: keras.Model, answer: Callable[[NDArray[np.uint8]], Any], images: NDArray[np.uint8]
) -> float:
    """Ask both about `images` and return the largest difference of a probability, 0 to `TOLERANCE`.

    Args:
        form: what the other one is, for the error.
        answer: the other one.
        images: real ones, at least one.

    Raises `ModelError` when the answers differ by more, are not finite or of another shape.
    """
    if not len(images):
        raise ModelError(f"{form}: expected images to compare the answers to, got none.", fix="add training images")
    expected, received = np.asarray(trained.predict_on_batch(images)), np.asarray(answer(images))
    if received.shape != expected.shape:
        raise ModelError(
            f"{form}: expected probabilities {list(expected.shape)}, got {list(received.shape)}.",
            fix="train again; if it repeats, the installed Keras and TensorFlow do not belong together",
        )
    difference = float(np.max(np.abs(expected - received)))
    if not difference <= TOLERANCE:  # also when it is no number
        raise ModelError(
            f"{form}: expected the trained model's probabilities within {TOLERANCE}, they differ by {difference:.2g}.",
            fix="train again; if it repeats, the installed Keras and TensorFlow do not belong together",
        )
    return difference
