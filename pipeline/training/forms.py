"""All files of one trained model, each checked against it on real images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.settings import Filter
from pipeline.training import conversion, export, lite, onnx, parity

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
    if forms and keras.backend.backend() != "tensorflow":
        with parity.float32():
            answers = parity.answering(model)(examples)
        return differences | _convert_elsewhere(folder, forms, examples, answers)
    return differences | convert(model, folder, forms, examples)


def convert(model: keras.Model, folder: Path, forms: Sequence[str], examples: NDArray[np.uint8]) -> dict[str, float]:
    """As `write`, without model.keras. Takes Keras's TensorFlow backend."""
    return {name: save(model, folder / name, examples) for name, save in map(_WRITERS.__getitem__, forms)}


def _convert_elsewhere(
    folder: Path, forms: Sequence[str], examples: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> dict[str, float]:
    """As `convert`, from model.keras, in a process of its own that runs the TensorFlow backend."""
    answers = folder / conversion.ANSWERS
    np.savez(answers, images=examples, probabilities=probabilities)
    command = [sys.executable, "-m", conversion.__name__, str(folder), *forms]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    answers.unlink()
    if done.returncode:
        raise ModelError(
            f"The process that converts the model ended with status {done.returncode}.", fix="see its output above"
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "problem" in found:
        raise ModelError(found["problem"], fix=found["fix"])
    return found
