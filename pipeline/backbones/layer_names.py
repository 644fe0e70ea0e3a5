"""The names that Keras gives to layers that are made without one: their class and a number."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def layer_kind(name: str) -> str:
    """The name without its number."""
    return re.sub(r"_\d+$", "", name)


def class_kind(name: str) -> str:
    """What Keras makes of a class's name: BatchNormalization -> batch_normalization."""
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)).lower()


def settle(model: keras.Model) -> None:
    """Number anew the layers that Keras numbers by how many it has made in this process: builds are then alike."""
    counts: dict[str, int] = {}
    for layer in model.layers:
        kind = layer_kind(layer.name)
        if kind == class_kind(type(layer).__name__):
            number = counts[kind] = counts.get(kind, -1) + 1
            layer.name = f"{kind}_{number}" if number else kind
