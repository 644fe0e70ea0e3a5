"""Weights in Keras's own files: `.weights.h5`, the legacy `.h5`, and a whole model that this project wrote (`.keras`).

Only arrays are read, never code, and no larger ones than the network has. A file is fit when every weight of the
backbone is in it with its shape; a classifier on top, or layers below that scale, may be in it and are left out.
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from pipeline.backbones.layer_names import class_kind, layer_kind
from pipeline.errors import ModelError

if TYPE_CHECKING:
    import keras

    from pipeline.backbones.scaling import ScalingMode

_CONFIG_LIMIT = 64 * 2**20  # bytes; NASNet's configuration has 1 MB
_WEIGHTS_LIMIT = 4 * 2**30
_FIX = "give weights of this network: {0}"
_KINDS = "a file that save_weights wrote (.weights.h5), one of keras.applications (.h5), or a model of Refit (.keras)"
# Layers with weights above the backbone, in keras.applications.
_CLASSIFIER = re.compile(r"predictions|fc\d*|conv_preds|conv_2|logits|dense(_\d+)?|.*_head_dense")
# What the first generation of EfficientNets divides by, after 1/255: Normalization by the square root of its
# variance, then a layer without weights by the square root of ImageNet's deviation. Together it must be `torch`.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(model: keras.Model, path: Path) -> None:
    """Assign the weights in an `.h5` file to `model`. Raises `ModelError` when they are not all there."""
    try:
        with h5py.File(path) as file:
            _refuse_links(file)
            legacy = "layer_names" in file.attrs or "model_weights" in file
            if legacy:
                _load_legacy(model, file.get("model_weights", file))
            else:
                _refuse_surplus(model, file)
        if not legacy:
            _load_current(model, path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        detail = " ".join(str(error).split())
        raise ModelError(
            f"{path.name} holds no weights for {model.name}: {detail:.300}", fix=_FIX.format(_KINDS)
        ) from None


def load_backbone_of(model: keras.Model, path: Path, scaling: ScalingMode) -> None:
    """Assign the weights that the backbone inside of a model of ours (`.keras`) has learned.

    Raises `ModelError` when that model stands on another network or feeds it otherwise than with `scaling`.
    """
    import keras

    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(_member(archive, "config.json", _CONFIG_LIMIT))
            _check_config(config, model, scaling, path)
            with tempfile.TemporaryDirectory() as folder:
                inner = Path(folder) / "model.weights.h5"
                inner.write_bytes(_member(archive, "model.weights.h5", _WEIGHTS_LIMIT))
                with h5py.File(inner) as file:
                    _refuse_links(file)
                # Keras finds weights by their place in a model, and this is the backbone's place in ours.
                inputs = keras.Input(model.input.shape[1:])
                _load_current(keras.Model(inputs, model(inputs)), inner)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        detail = " ".join(str(error).split())
        raise ModelError(
            f"{path.name} is no model of Refit that stands on {model.name}: {detail:.300}", fix=_FIX.format(_KINDS)
        ) from None


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with archive.open(name) as stream:  # the size that the archive states may be a lie
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{name} is larger than {limit >> 20} MiB")
    return content


def _check_config(config: Any, model: keras.Model, scaling: ScalingMode, path: Path) -> None:
    layers = config["config"]["layers"]
    nested = [layer["config"] for layer in layers if layer["class_name"] == "Functional"]
    if len(nested) != 1:
        raise ValueError(f"expected one network inside of it, found {len(nested)}")
    found = _settled([(layer["class_name"], layer["config"]["name"]) for layer in nested[0]["layers"]])
    expected = _settled([(type(layer).__name__, layer.name) for layer in model.layers])
    if found != expected:
        odd = next((pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]), ("another", "number"))
        raise ValueError(
            f"{nested[0]['name']!r} has {len(found)} layers, {model.name} {len(expected)}; {odd[0]!r} is there "
            f"instead of {odd[1]!r}"
        )
    modes = [layer["config"].get("mode") for layer in layers if layer["class_name"] == "InputScaling"]
    if modes != [scaling]:
        raise ModelError(
            f"{path.name}: expected a model that scales its input as {scaling!r}, it does as {modes}.",
            fix="train from the weights that it was trained from, or give another model",
        )


def _settled(layers: list[tuple[str, str]]) -> list[str]:
    """Names, with the numbers left out that Keras gives in the order in which a process makes layers."""
    return [layer_kind(name) if layer_kind(name) == class_kind(kind) else name for kind, name in layers]


def _load_current(model: keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of every layer that does not fit, then raises
        model.load_weights(path)


def _refuse_surplus(model: keras.Model, file: h5py.File) -> None:
    """Keras reads what it looks for and ignores the rest; a larger network of the same family could pass."""
    stored = Counter(layer_kind(name) for name, group in file.get("layers", {}).items() if len(group.get("vars", ())))
    here = Counter(class_kind(type(layer).__name__) for layer in model.layers if layer.weights)
    surplus = stored - here - Counter({"dense": 3, "normalization": 1})
    if surplus:
        raise ValueError(f"it has more layers with weights: {dict(surplus)}")


def _load_legacy(model: keras.Model, group: h5py.Group) -> None:
    """Layers are matched by their order, as Keras does: the names of many are numbered by chance."""
    stored = [(name, arrays) for name in _texts(group.attrs["layer_names"]) if (arrays := _arrays(group[name]))]
    if stored and stored[0][0].startswith("normalization"):
        _check_normalisation(stored.pop(0)[1])
    layers = [layer for layer in model.layers if layer.weights]
    surplus = [name for name, _ in stored[len(layers) :]]
    if len(stored) < len(layers) or not all(map(_CLASSIFIER.fullmatch, surplus)):
        raise ValueError(f"expected {len(layers)} layers with weights, got {len(stored)}")
    for layer, (name, arrays) in zip(layers, stored, strict=False):
        expected, received = [tuple(w.shape) for w in layer.weights], [array.shape for array in arrays]
        if expected != received:
            raise ValueError(f"layer {name!r}: expected the shapes {expected} of {layer.name}, got {received}")
        layer.set_weights([array[...] for array in arrays])


def _arrays(group: h5py.Group) -> list[h5py.Dataset]:
    return [group[name] for name in _texts(group.attrs["weight_names"])]


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _check_normalisation(arrays: list[h5py.Dataset]) -> None:
    mean, variance = (np.asarray(array[...], np.float64).reshape(-1) for array in arrays[:2])
    total = np.sqrt(variance) * np.sqrt(_DEVIATION)
    if mean.shape != (3,) or not (np.allclose(mean, _MEAN, atol=0.01) and np.allclose(total, _DEVIATION, rtol=0.02)):
        raise ValueError(f"its input is normalised with mean {mean.tolist()} and variance {variance.tolist()}")


def _refuse_links(file: h5py.File) -> None:
    """HDF5 may name other files as parts of this one."""
    for path in _links(file):
        raise ValueError(f"{path} points to another file")


def _links(group: h5py.Group) -> Iterator[str]:
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
            yield f"{group.name}/{name}"
            continue
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _links(item)
        elif item.external or item.is_virtual:
            yield f"{group.name}/{name}"
