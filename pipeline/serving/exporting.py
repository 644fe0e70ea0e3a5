"""A published model as a file or folder of its own, in one of its forms, shown to answer as the model does."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline import files
from pipeline.backbones import known_images
from pipeline.errors import SettingsError
from pipeline.training import export, forms, lite, onnx, parity

_SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra")  # in a version's folder
_NAMES = {"keras": forms.KERAS, "saved_model": "saved_model", "tflite": "model.tflite", "onnx": "model.onnx"}


def write(version: Path, form: str, target: Path) -> float:
    """Write the model in the folder `version` to `target`, which must not exist: a file, or a folder for saved_model.

    What the version holds is copied, another form is made from its model.keras. Either way its answers to known images
    are compared with those of model.keras before it takes its name; the largest difference is returned.

    Raises `SettingsError` if `target` exists or there is no folder for it, `ModelError` if the form cannot be made or
    answers otherwise.
    """
    _require_free(target)
    model = export.load(version / forms.KERAS)
    images = known_images.make(model.input_shape[1])
    staged = Path(tempfile.mkdtemp(prefix=files.TEMPORARY_PREFIX, dir=target.parent))
    try:
        made = staged / _NAMES[form]
        if not _copy(version, form, made):
            forms.convert(model, staged, [form], images)
        difference = parity.check(form, parity.answering(model), _answering(form, made), images)
        _flush(made)
        _require_free(target)
        made.rename(target)
        return difference
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _require_free(target: Path) -> None:
    if os.path.lexists(target):
        raise SettingsError(f"--to: {target} exists, and nothing is overwritten.", fix="name another place")
    if not target.parent.is_dir():
        raise SettingsError(f"--to: expected a folder at {target.parent}, found none.", fix="make it first")


def _copy(version: Path, form: str, made: Path) -> bool:
    """Whether the version holds that form."""
    if form == "saved_model":
        made.mkdir()
        for part in (version / name for name in _SAVED_MODEL):
            if part.is_dir():
                shutil.copytree(part, made / part.name, copy_function=shutil.copyfile)
            elif part.exists():
                shutil.copyfile(part, made / part.name)
        return True
    if not (version / made.name).exists():
        return False
    shutil.copyfile(version / made.name, made)
    return True


def _answering(form: str, path: Path) -> Callable[[NDArray[np.uint8]], Any]:
    match form:
        case "keras":
            return parity.answering(export.load(path))
        case "tflite":
            return lite.answering(path)
        case "onnx":
            return onnx.answering(path)
    loaded = tf.saved_model.load(str(path))
    return lambda images: loaded.signatures["serving_default"](images=tf.constant(images))["probabilities"]


def _flush(made: Path) -> None:
    for path in [made, *made.rglob("*")]:
        if path.is_file():
            path.chmod(0o644)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
