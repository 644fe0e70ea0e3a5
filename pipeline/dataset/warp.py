"""Moving the pixels of images along an affine map.

Keras's own `affine_transform` is under TensorFlow an operation that XLA cannot compile, and that wraps wrongly beyond
one width; under JAX it is a matrix product, whose factors accelerators round to 10 bits. So pixels are gathered, in
operations that every backend and XLA have. Where TensorFlow has nothing but CPUs its operation does it, in a third of
the time; the two differ by rounding only.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf
from keras import ops


@functools.cache
def on_cpu() -> bool:
    """Whether TensorFlow carries out what it is told, and has no accelerator for it."""
    return bool(keras.backend.backend() == "tensorflow" and not tf.config.list_physical_devices("GPU"))


def warp(x: Any, affine: Any, fill: str) -> Any:
    """Bilinear interpolation.

    Args:
        x: float32 [N, H, W, C].
        affine: float32 [N, 6]: output pixel (x, y) shows what lies at a x + b y + c, d x + e y + f.
        fill: what lies beyond the edge: `nearest` its last pixel, `reflect` the mirror image (d c b a | a b c d | d c),
            `wrap` the image again, `constant` black.
    """
    if fill != "wrap" and on_cpu():
        eight = ops.pad(affine, [[0, 0], [0, 2]])  # no perspective
        return ops.image.affine_transform(x, eight, fill_mode=fill, data_format="channels_last")
    return gathered(x, affine, fill)


def gathered(x: Any, affine: Any, fill: str) -> Any:
    """`warp` in operations that every backend and XLA have."""
    count, (height, width, channels) = ops.shape(x)[0], x.shape[1:]
    across = ops.arange(width, dtype="float32")[None, None, :]
    down = ops.arange(height, dtype="float32")[None, :, None]
    # Not affine[:, number, None, None]: of what the same graph has stacked, TensorFlow's optimizer loses the axes.
    a, b, c, d, e, f = (ops.reshape(affine[:, number], (-1, 1, 1)) for number in range(6))
    source_x, source_y = a * across + b * down + c, d * across + e * down + f
    left, top = ops.floor(source_x), ops.floor(source_y)
    flat = ops.reshape(x, (-1, channels))
    first = height * width * ops.arange(count, dtype="int32")[:, None, None]

    def pixels(row: Any, column: Any) -> Any:
        row, column = ops.cast(row, "int32"), ops.cast(column, "int32")
        found = ops.take(flat, first + _inside(row, height, fill) * width + _inside(column, width, fill), axis=0)
        if fill != "constant":
            return found
        exists = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return ops.where(exists[..., None], found, 0.0)

    right_share, lower_share = (source_x - left)[..., None], (source_y - top)[..., None]
    upper = pixels(top, left) * (1 - right_share) + pixels(top, left + 1) * right_share
    lower = pixels(top + 1, left) * (1 - right_share) + pixels(top + 1, left + 1) * right_share
    return upper * (1 - lower_share) + lower * lower_share


def _inside(index: Any, size: int, fill: str) -> Any:
    if fill == "wrap":
        return index % size
    if fill == "reflect":
        index = index % (2 * size)
        return ops.minimum(index, 2 * size - 1 - index)
    return ops.clip(index, 0, size - 1)
