"""The one way in which images become the square that a model sees, in training and in serving alike."""

from __future__ import annotations

import tensorflow as tf


def resize_uint8(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resize one image, or a batch of images of one shape, to `size` x `size` pixels.

    Bilinear with antialiasing, rounded to the nearest integer; the aspect ratio is not kept. An image that has
    the size already is returned unchanged. Without antialiasing a large photograph would be sampled at single
    pixels, and the model would see noise that its training images of another size did not have.

    Args:
        image: uint8 [H, W, 3] or [N, H, W, 3], 0-255.
        size: pixels.

    Returns:
        uint8 [size, size, 3] or [N, size, size, 3].
    """
    resized = tf.image.resize(image, (size, size), method="bilinear", antialias=True)
    # Rounding errors of the filter may leave 0-255 by a fraction, which the cast would wrap around.
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
