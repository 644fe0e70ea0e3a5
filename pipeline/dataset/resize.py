"""The one way in which images become the square that a model sees, in training and in serving alike.

The aspect ratio is not kept. Large images are averaged, not sampled at single pixels: else the model would see noise
that its training images of another size did not have. Both steps of it are cheap: libjpeg halves a JPEG's sides while
it decodes, as long as they stay above the square's, and up to `_SAMPLED` times the square every pixel has its part in
bilinear interpolation. With antialiased resizing from the full size, reading takes twice as long, and the ImageNet
accuracy of EfficientNet-Lite0 is the same (benchmarks/RESULTS.md).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_SAMPLED = 2.5
_RATIOS = (1, 2, 4, 8)  # by which libjpeg divides both sides


def resize_uint8(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resize one image, or a batch of images of one shape, to `size` x `size` pixels.

    Along a side of more than `_SAMPLED` times the size every pixel is the mean of its area; the rest is bilinear. An
    image that has the size already is returned unchanged.

    Args:
        image: uint8 [H, W, 3] or [N, H, W, 3], 0-255.
        size: pixels.

    Returns:
        uint8 [size, size, 3] or [N, size, size, 3].
    """
    sides = tf.shape(image)[-3:-1]
    large = sides > int(_SAMPLED * size)

    def interpolated(smaller: tf.Tensor) -> tf.Tensor:
        resized = tf.image.resize(smaller, (size, size), method="bilinear")
        return tf.cast(resized + 0.5, tf.uint8)  # means of 0-255, so they lie in it

    def averaged() -> tf.Tensor:
        return interpolated(tf.image.resize(image, tf.where(large, size, sides), method="area"))

    return tf.cond(tf.reduce_any(large), averaged, lambda: interpolated(image))


def decode_square(encoded: tf.Tensor, size: int, box: tf.Tensor | None = None) -> tf.Tensor:
    """Decode an image and resize it to `size` x `size` pixels; only what lies in a box is decoded.

    Args:
        encoded: string [], a JPEG, PNG, GIF (first frame) or BMP file. Orientation tags are not followed.
        box: float32 [4], top, left, height and width as shares of the image; all of it by default.

    Returns:
        uint8 [size, size, 3].
    """

    def other() -> tf.Tensor:
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        if box is None:
            return image
        start, extent = _window(tf.shape(image)[:2], box)
        return tf.slice(image, [start[0], start[1], 0], [extent[0], extent[1], 3])

    image = tf.cond(tf.io.is_jpeg(encoded), lambda: _jpeg(encoded, size, box), other)
    return tf.ensure_shape(resize_uint8(image, size), (size, size, 3))


def _jpeg(encoded: tf.Tensor, size: int, box: tf.Tensor | None) -> tf.Tensor:
    shape = tf.io.extract_jpeg_shape(encoded)[:2]
    start, extent = (tf.zeros_like(shape), shape) if box is None else _window(shape, box)

    def divided(ratio: int) -> Any:
        if box is None:
            return lambda: tf.io.decode_jpeg(encoded, channels=3, ratio=ratio)
        window = tf.concat([start // ratio, tf.maximum(1, extent // ratio)], axis=0)
        return lambda: tf.io.decode_and_crop_jpeg(encoded, window, channels=3, ratio=ratio)

    possible = [tf.cast(tf.reduce_min(extent) >= ratio * size, tf.int32) for ratio in _RATIOS[1:]]
    return tf.switch_case(tf.add_n(possible), [divided(ratio) for ratio in _RATIOS])


def _window(shape: tf.Tensor, box: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Top and left, height and width in pixels, int32 [2] each."""
    sides = tf.cast(shape, tf.float32)
    extent = tf.maximum(1, tf.cast(tf.round(box[2:] * sides), tf.int32))
    return tf.minimum(tf.cast(tf.round(box[:2] * sides), tf.int32), shape - extent), extent
