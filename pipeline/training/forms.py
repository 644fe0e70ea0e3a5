"""All files of one trained model, each checked against it on real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.settings import Filter
from pipeline.training import export, lite, onnx

KERAS = "model.keras"
_Writer = Callable[[keras.Model, Path, NDArray[np.uint8]], float]
_WRITERS: dict[str, tuple[str, _Writer]] = {
    "saved_model": ("saved_model", export.save_serving),
    "tflite": ("model.tflite", lite.save),
    "onnx": ("model.onnx", onnx.save),
}
FORMS = tuple(_WRITERS)


def check(forms: Sequence[str], filters: Sequence[Filter]) -> None:
    """Call it before training: a form that cannot be had must not show after hours.

    Raises `SettingsError` for a filter that a form cannot take, `ModelError` for packages that are missing.
    """
    if "tflite" in forms:
        lite.check(filters)
    if "onnx" in forms:
        onnx.check()


def write(model: keras.Model, folder: Path, forms: Sequence[str], examples: NDArray[np.uint8]) -> dict[str, float]:
    """Write model.keras and, of `FORMS`, those that are asked for into `folder`.

    Args:
        examples: real images, uint8 [N, S, S, 3], to compare the answers on.

    Returns file to the largest difference of a probability. Raises `ModelError` when a file answers otherwise than
    the model, or the model cannot be brought into a form.
    """
    differences = {KERAS: export.save(model, folder / KERAS, examples)}
    for form in forms:
        name, save = _WRITERS[form]
        differences[name] = save(model, folder / name, examples)
    return differences
