"""RandAugment (Cubuk et al. 2020): some operations, drawn evenly from fourteen, all of one strength.

The operations are Pillow's and their ranges torchvision's, except that images are sheared about their middle and that
no operation does anything at magnitude 0 (torchvision turns white to black). Here they come in a fixed order: movement
joins the other movement of the image, then sharpness, then colour joins the other colour, then the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    """`unit`: float32 [..., operations, 2], random numbers in [0, 1): which operation, and its sign."""
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
            "solarize": 256 * (1 - policy.magnitude * happens("solarize")),
            "autocontrast": happens("autocontrast"),
            "equalize": happens("equalize"),
        },
    )


def sharpen(x: Any, draws: Mapping[str, Any]) -> Any:
    """Float32 [N, H, W, 3]. The outermost pixels stay, as in Pillow."""
    if "sharpness" not in draws:
        return x
    # Pillow's ImageFilter.SMOOTH: a pixel counts five times, its eight neighbours once. Sums, since accelerators
    # round the factors of a convolution to 10 bits.
    rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    middle = x[:, 1:-1, 1:-1]
    smooth = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * middle) / 13
    change = ops.pad(middle - smooth, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return x + (_per_image(draws["sharpness"]) - 1) * change


def tabulate(x: Any, draws: Mapping[str, Any]) -> Any:
    """What maps each value of a channel to another one. Float32 [N, H, W, 3] of whole numbers, 0-255."""
    if "levels" not in draws:
        return x
    low, high = ops.min(x, axis=(1, 2), keepdims=True), ops.max(x, axis=(1, 2), keepdims=True)
    stretched = ops.where(high > low, ops.floor((x - low) * 255.0 / ops.maximum(high - low, 1.0)), x)
    x = ops.where(_per_image(draws["autocontrast"]) > 0, stretched, x)
    x = ops.where(_per_image(draws["equalize"]) > 0, _equalized(x), x)
    x = ops.where(x >= _per_image(draws["solarize"]), 255.0 - x, x)
    levels = _per_image(draws["levels"])
    return ops.floor(x / levels) * levels


def _equalized(x: Any) -> Any:
    """As Pillow's `ImageOps.equalize`. Keras's layer takes one histogram of the whole batch."""
    count, height, width = ops.shape(x)[:3]
    channels = ops.reshape(ops.transpose(ops.cast(x, "int32"), (0, 3, 1, 2)), (-1, height * width))
    first = 256 * ops.arange(3 * count, dtype="int32")[:, None]  # of each channel's 256 bins
    bins = ops.reshape(channels + first, (-1,))
    histogram = ops.reshape(ops.segment_sum(ops.ones_like(bins), bins, num_segments=768 * count), (-1, 256))
    up_to = ops.cumsum(histogram, axis=1)
    brightest = ops.take_along_axis(histogram, ops.max(channels, axis=1, keepdims=True), axis=1)
    step = (height * width - brightest) // 255
    table = ops.clip((step // 2 + up_to - histogram) // ops.maximum(step, 1), 0, 255)
    table = ops.where(step > 0, table, ops.arange(256, dtype="int32"))
    found = ops.reshape(ops.take(ops.reshape(table, (-1,)), bins), (-1, 3, height, width))
    return ops.cast(ops.transpose(found, (0, 2, 3, 1)), "float32")


def _per_image(values: Any) -> Any:
    return ops.reshape(values, (-1, 1, 1, 1))
