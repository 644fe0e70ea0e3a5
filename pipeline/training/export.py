"""Trained models as files, and the proof that the files give the same answers as the model in memory."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.backbones import scaling
from pipeline.dataset.resize import decode_square
from pipeline.errors import ModelError
from pipeline.training import filters, layers

TOLERANCE = 1e-4  # largest difference of a probability between two forms of one model
LAYERS = (  # importing them registers them with Keras
    filters.Grayscale,
    filters.Edges,
    filters.Contours,
    filters.Clahe,
    scaling.InputScaling,
    layers.Standardise,
    layers.Probabilities,
)


def load(path: Path) -> keras.Model:
    """A model that `save` wrote: images uint8 [N, S, S, 3] to probabilities float32 [N, classes].

    Raises `ModelError` when it is missing or cannot be read. No code that the file may carry is run.
    """
    if not path.is_file():
        raise ModelError(f"Expected a model at {path}, found none.", fix="run the train stage of this run again")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError) as error:
        detail = " ".join(str(error).split())
        raise ModelError(f"{path} is no readable model: {detail:.300}", fix="train it again") from error
    model.compile(jit_compile="auto")  # uncompiled, Keras predicts through XLA, on a CPU 20 times slower
    return model


def class_names(model: keras.Model) -> tuple[str, ...]:
    """The classes in the order of the model's output."""
    names: tuple[str, ...] = model.get_layer("probabilities").classes
    return names


def save(model: keras.Model, path: Path, examples: NDArray[np.uint8]) -> None:
    """Write `model` to `path` (.keras) and check it on real images, uint8 [N, S, S, 3].

    Raises `ModelError` when the file answers otherwise than the model.
    """
    model.save(path)
    reloaded = load(path)
    _compare(model.predict_on_batch(examples), reloaded.predict_on_batch(examples), path.name)


def save_serving(model: keras.Model, folder: Path, examples: NDArray[np.uint8]) -> None:
    """Write a SavedModel and check it on real images, uint8 [N, S, S, 3].

    Signatures: `serving_default` takes `images`, uint8 [N, S, S, 3]; `encoded` takes `encoded`, strings [N], each a
    JPEG, PNG, GIF (first frame) or BMP file of any size, and resizes as in training. Orientation tags are not
    followed. Both give `probabilities`, float32 [N, classes].

    Raises `ModelError` when the SavedModel answers otherwise than the model.
    """
    size = model.input_shape[1]

    def images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(images, training=False)}

    def encoded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        decoded = tf.map_fn(
            lambda content: decode_square(content, size),
            encoded,
            fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8),
        )
        return {"probabilities": model(decoded, training=False)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", images, [tf.TensorSpec((None, size, size, 3), tf.uint8, name="images")])
    archive.add_endpoint("encoded", encoded, [tf.TensorSpec((None,), tf.string, name="encoded")])
    archive.write_out(str(folder), verbose=False)

    served = tf.saved_model.load(str(folder))
    expected = model.predict_on_batch(examples)
    pictures = tf.constant([tf.io.encode_png(image).numpy() for image in examples])
    _compare(expected, served.signatures["serving_default"](images=tf.constant(examples))["probabilities"], "images")
    _compare(expected, served.signatures["encoded"](encoded=pictures)["probabilities"], "encoded")


def _compare(expected: NDArray[np.float32], received: NDArray[np.float32], what: str) -> None:
    difference = float(np.max(np.abs(expected - np.asarray(received))))
    if not difference <= TOLERANCE:
        raise ModelError(
            f"{what}: expected the trained model's probabilities within {TOLERANCE}, they differ by {difference:.2g}.",
            fix="train again; if it repeats, the installed Keras and TensorFlow do not belong together",
        )
