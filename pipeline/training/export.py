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
from pipeline.training import filters, layers, parity

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


def save(model: keras.Model, path: Path, examples: NDArray[np.uint8]) -> float:
    """Write `model` to `path` (.keras) and check it on real images, uint8 [N, S, S, 3].

    Returns the largest difference of a probability. Raises `ModelError` when the file answers otherwise than the model.
    """
    model.save(path)
    return parity.check(path.name, parity.answering(model), load(path).predict_on_batch, examples)


def save_serving(model: keras.Model, folder: Path, examples: NDArray[np.uint8]) -> float:
    """Write a SavedModel and check it on real images, uint8 [N, S, S, 3].

    Signatures: `serving_default` takes `images`, uint8 [N, S, S, 3]; `encoded` takes `encoded`, strings [N], each a
    JPEG, PNG, GIF (first frame) or BMP file of any size, and resizes as in training. Orientation tags are not
    followed. Both give `probabilities`, float32 [N, classes]. `classes` takes nothing and gives `classes`, the names,
    strings [classes].

    Returns the largest difference of a probability. Raises `ModelError` when a signature answers otherwise than the
    model.
    """
    size = model.input_shape[1]
    names = class_names(model)

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
    archive.add_endpoint("classes", lambda: {"classes": tf.constant(names)}, [])
    archive.write_out(str(folder), verbose=False)

    served = tf.saved_model.load(str(folder)).signatures

    def by_image(examples: NDArray[np.uint8]) -> tf.Tensor:
        return served["serving_default"](images=tf.constant(examples))["probabilities"]

    def by_file(examples: NDArray[np.uint8]) -> tf.Tensor:
        files = [tf.io.encode_png(image).numpy() for image in examples]
        return served["encoded"](encoded=tf.constant(files))["probabilities"]

    return max(
        parity.check(f"{folder.name}, signature serving_default", parity.answering(model), by_image, examples),
        parity.check(f"{folder.name}, signature encoded", parity.answering(model), by_file, examples),
    )
