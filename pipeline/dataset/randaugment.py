"""RandAugment (Cubuk et al. 2020): some operations, drawn evenly from fourteen, all of one strength.

The operations and their ranges are torchvision's. Here they come in a fixed order: movement joins the other movement
of the image and colour the other colour; sharpness and the tables, which are no linear maps, follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from pipeline.dataset.presets import Policy

_OPERATIONS = (
    *("identity", "shear_x", "shear_y", "shift_x", "shift_y", "turn", "brightness", "saturation", "contrast"),
    *("sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)
# At magnitude 1, as in torchvision.transforms.RandAugment.
_SHEAR = 0.3
_SHIFT = 150 / 331  # of the side
_TURN = 30 / 360
_FACTOR = 0.9
_BITS_LOST = 4
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # Pillow's ImageFilter.SMOOTH


@dataclass(frozen=True)
class Extra:
    """What joins an image's movement (shares of a turn and of the side) and its colour (factors), float32 [...].

    `tables`: `sharpness` (factor), `levels` (grey levels that become one, posterize), `solarize` (values from this
    one on are inverted), `autocontrast` and `equalize` (0 or 1), float32 [...] each.
    """

    turn: Any = 0.0
    shear_x: Any = 0.0
    shear_y: Any = 0.0
    shift_x: Any = 0.0
    shift_y: Any = 0.0
    brightness: Any = 1.0
    saturation: Any = 1.0
    contrast: Any = 1.0
    tables: Mapping[str, Any] = field(default_factory=dict)


NOTHING = Extra()


def draw(unit: Any, policy: Policy) -> Extra:
    """`unit`: float32 [..., operations, 3], random numbers in [0, 1): which operation, its sign; the third is spare."""
    number = tf.cast(tf.floor(unit[..., 0] * len(_OPERATIONS)), tf.int32)
    chosen = tf.one_hot(number, len(_OPERATIONS))  # [..., operations, 14]
    sign = tf.where(unit[..., 1] < 0.5, -1.0, 1.0)[..., None]
    signed = policy.magnitude * tf.reduce_sum(chosen * sign, axis=-2)  # an operation that is drawn twice adds up
    times = tf.reduce_sum(chosen, axis=-2)

    def strength(name: str) -> Any:
        return signed[..., _OPERATIONS.index(name)]

    def happens(name: str) -> Any:
        return tf.minimum(times[..., _OPERATIONS.index(name)], 1.0)

    def factor(name: str) -> Any:
        return tf.maximum(0.0, 1 + _FACTOR * strength(name))

    return Extra(
        turn=_TURN * strength("turn"),
        shear_x=_SHEAR * strength("shear_x"),
        shear_y=_SHEAR * strength("shear_y"),
        shift_x=_SHIFT * strength("shift_x"),
        shift_y=_SHIFT * strength("shift_y"),
        brightness=factor("brightness"),
        saturation=factor("saturation"),
        contrast=factor("contrast"),
        tables={
            "sharpness": factor("sharpness"),
            "levels": 2.0 ** (happens("posterize") * float(round(_BITS_LOST * policy.magnitude))),
            "solarize": 256 - happens("solarize") * (1 + 255 * policy.magnitude),
            "autocontrast": happens("autocontrast"),
            "equalize": happens("equalize"),
        },
    )


def sharpen(x: Any, draws: Mapping[str, Any]) -> Any:
    """Float32 [N, S, S, 3]. The outermost pixels stay, as in Pillow."""
    if "sharpness" not in draws:
        return x
    kernel = ops.convert_to_tensor(np.repeat(_SMOOTH[:, :, None, None], 3, axis=2))
    smooth = ops.depthwise_conv(x, kernel, padding="valid", data_format="channels_last")
    change = ops.pad(x[:, 1:-1, 1:-1] - smooth, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return x + (_per_image(draws["sharpness"]) - 1) * change


def tabulate(x: Any, draws: Mapping[str, Any]) -> Any:
    """What maps each value of a channel to another one. Float32 [N, S, S, 3] of whole numbers, 0-255."""
    if "levels" not in draws:
        return x
    low, high = ops.min(x, axis=(1, 2), keepdims=True), ops.max(x, axis=(1, 2), keepdims=True)
    stretched = ops.where(high > low, ops.floor((x - low) * (255.0 / ops.maximum(high - low, 1.0)) + 0.5), x)
    x = ops.where(_per_image(draws["autocontrast"]) > 0, stretched, x)
    equal = keras.layers.Equalization(value_range=(0, 255), data_format="channels_last", dtype="float32")(x)
    x = ops.where(_per_image(draws["equalize"]) > 0, equal, x)
    x = ops.where(x >= _per_image(draws["solarize"]), 255.0 - x, x)
    levels = _per_image(draws["levels"])
    return ops.floor(x / levels) * levels


def _per_image(values: Any) -> Any:
    return ops.reshape(values, (-1, 1, 1, 1))
