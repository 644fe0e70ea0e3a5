"""The proof that a model in another form gives the same answers as the one that was trained.

Images: uint8 [N, S, S, 3]. Answers: probabilities, float32 [N, classes].
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

TOLERANCE = 1e-4  # largest difference of a probability between two forms of one model

Model = Callable[[NDArray[np.uint8]], Any]  # images to answers

_FIX = "train again; if it repeats, the installed Keras and TensorFlow do not belong together"


def answering(model: keras.Model) -> Model:
    """What the model in memory answers.

    In TensorFlow not through XLA: what that has compiled keeps the precision that it was compiled for.
    """
    if keras.backend.backend() == "tensorflow":
        return lambda images: model(images, training=False)
    return model.predict_on_batch


@contextlib.contextmanager
def float32() -> Iterator[None]:
    """Full float32 on GPUs that otherwise multiply in TensorFloat-32.

    That has 10 bits of mantissa, so its answers differ by more than `TOLERANCE` from a CPU's, where Lite and ONNX run.
    """
    with contextlib.ExitStack() as stack:
        if keras.backend.backend() == "jax":
            import jax

            stack.enter_context(jax.default_matmul_precision("float32"))
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            before = tf.config.experimental.tensor_float_32_execution_enabled()
            tf.config.experimental.enable_tensor_float_32_execution(False)
            stack.callback(tf.config.experimental.enable_tensor_float_32_execution, before)
        yield


def check(form: str, trained: Model, other: Model, images: NDArray[np.uint8]) -> float:
    """Ask both about `images`, real ones, and return the largest difference of a probability, 0 to `TOLERANCE`.

    `form` is what the other one is, for the error.

    Raises `ModelError` when the answers differ by more, are not finite or of another shape, and without images.
    """
    if not len(images):
        raise ModelError(f"{form}: expected images to compare the answers to, got none.", fix="add training images")
    with float32():
        expected, received = np.asarray(trained(images)), np.asarray(other(images))
    if received.shape != expected.shape:
        raise ModelError(
            f"{form}: expected probabilities {list(expected.shape)}, got {list(received.shape)}.", fix=_FIX
        )
    return within(form, float(np.max(np.abs(expected - received))))


def within(form: str, difference: float) -> float:
    """The difference, if it is at most `TOLERANCE`. Raises `ModelError` if it is larger or no number."""
    if not difference <= TOLERANCE:
        raise ModelError(
            f"{form}: expected the trained model's probabilities within {TOLERANCE}, they differ by {difference:.2g}.",
            fix=_FIX,
        )
    return difference
