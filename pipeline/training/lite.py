"""Trained models as TensorFlow Lite (LiteRT) files, for phones and small devices."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline import files, runtime
from pipeline.errors import ModelError, SettingsError
from pipeline.settings import Filter
from pipeline.training import export, lite_labels, parity

SIGNATURE = "serving_default"

# Canny's hysteresis packs pixels into bits, and TensorFlow Lite has no and, or and left shift of bits. TensorFlow's own
# kernels for them ("select ops") are in few of its interpreters; those of TensorFlow 2.21 and ai-edge-litert lack them.
_IMPOSSIBLE: tuple[Filter, ...] = ("contours",)


def check(filters: Sequence[Filter]) -> None:
    """Raises `SettingsError` if a model with these filters cannot become a TensorFlow Lite file."""
    if impossible := [name for name in filters if name in _IMPOSSIBLE]:
        raise SettingsError(
            f"train.filters: {impossible[0]} takes operations that TensorFlow Lite does not have.",
            fix=f"leave {impossible[0]} or the TensorFlow Lite file out; ONNX has them",
        )


def save(model: keras.Model, path: Path, examples: NDArray[np.uint8]) -> float:
    """Write `model` to `path` (.tflite), with float32 weights, and check it on real images, uint8 [N, S, S, 3].

    The signature `serving_default` takes `images`, uint8 [N, S, S, 3], and gives `probabilities`, float32
    [N, classes]. N is 1 until the input is resized. The classes are named as `lite_labels` says.

    Returns the largest difference of a probability. Raises `ModelError` when the model cannot be converted or the
    file answers otherwise than it.
    """
    check([layer.name for layer in model.layers if layer.name in _IMPOSSIBLE])
    files.write_bytes(path, lite_labels.add(_converted(model), export.class_names(model)))
    return parity.check(path.name, parity.answering(model), answering(path), examples)


def answering(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """A function from images uint8 [N, S, S, 3] to the file's probabilities float32 [N, classes]."""
    with warnings.catch_warnings():
        # TensorFlow 2.19 and later announce that this class will move to the package ai-edge-litert.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(model_path=str(path))
    run = interpreter.get_signature_runner(SIGNATURE)
    return lambda images: run(images=images)["probabilities"]


def _converted(model: keras.Model) -> bytes:
    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(images, training=False)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(SIGNATURE, answer, [tf.TensorSpec(model.input_shape, tf.uint8, name="images")])
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        try:
            with runtime.no_descriptor_2():  # the converter names two options there that it does not use
                content: bytes = converter.convert()
        except Exception as error:  # the converter's own class is not public
            detail = " ".join(str(error).split())
            raise ModelError(
                f"TensorFlow Lite cannot take this model: {detail:.300}", fix="leave that form out"
            ) from error
    return content
