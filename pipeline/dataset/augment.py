"""Altered copies of training images: moved, turned, scaled, mirrored, brighter or darker.

What is drawn for an image depends on the seed, the image's id and the number of the view alone, not on the order
in which images come or on the other images of a batch, so a cached view can be computed again. All movement is
one affine map with one interpolation: maps in sequence would blur the image each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline.settings import Augment


@dataclass(frozen=True)
class Draws:
    """What happens to N images. `transforms`: float32 [N, 8], from output to input pixels, as
    `keras.ops.image.affine_transform` takes them. `gain` and `shift`: float32 [N], pixel becomes
    mean + gain * (pixel - mean) + shift, with the mean of the image, on 0-255."""

    transforms: NDArray[np.float32]
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]


def draw(ids: Sequence[str], *, view: int, seed: int, side: int, settings: Augment) -> Draws:
    """Draw uniformly within the ranges of `settings` for images of `side` x `side` pixels."""
    unit = np.stack([_uniform(f"{seed}/{view}/{image_id}") for image_id in ids])  # [N, 8] in [-1, 1)
    angle = 2 * np.pi * settings.rotation * unit[:, 0]
    scale = 1 + settings.zoom * unit[:, 1]
    shift_x, shift_y = settings.translation * side * unit[:, 2], settings.translation * side * unit[:, 3]
    mirror_x = np.where(settings.horizontal_flip & (unit[:, 4] < 0), -1.0, 1.0)
    mirror_y = np.where(settings.vertical_flip & (unit[:, 5] < 0), -1.0, 1.0)
    a = np.stack([np.cos(angle) * mirror_x, -np.sin(angle) * mirror_y], axis=1) * scale[:, None]
    b = np.stack([np.sin(angle) * mirror_x, np.cos(angle) * mirror_y], axis=1) * scale[:, None]
    centre = (side - 1) / 2  # the image turns about its middle, not about its corner
    offset_a = centre - centre * a.sum(axis=1) + shift_x
    offset_b = centre - centre * b.sum(axis=1) + shift_y
    zero = np.zeros(len(ids))
    transforms = np.stack([a[:, 0], a[:, 1], offset_a, b[:, 0], b[:, 1], offset_b, zero, zero], axis=1)
    return Draws(
        transforms.astype(np.float32),
        (1 + settings.contrast * unit[:, 6]).astype(np.float32),
        (255 * settings.brightness * unit[:, 7]).astype(np.float32),
    )


def apply(images: NDArray[np.uint8], draws: Draws) -> NDArray[np.uint8]:
    """Images and result: uint8 [N, S, S, 3], 0-255. Pixels from outside repeat the nearest edge."""
    x = ops.image.affine_transform(
        ops.cast(images, "float32"), draws.transforms, fill_mode="nearest", data_format="channels_last"
    )
    mean = ops.mean(x, axis=(1, 2, 3), keepdims=True)
    x = mean + _per_image(draws.gain) * (x - mean) + _per_image(draws.shift)
    pixels: NDArray[np.uint8] = ops.convert_to_numpy(ops.cast(ops.clip(ops.round(x), 0.0, 255.0), "uint8"))
    return pixels


def view(
    images: NDArray[np.uint8], ids: Sequence[str], *, number: int, seed: int, settings: Augment
) -> NDArray[np.uint8]:
    """View `number` of each image; view 0 is the image itself."""
    if number == 0:
        return images
    return apply(images, draw(ids, view=number, seed=seed, side=images.shape[1], settings=settings))


def _uniform(key: str) -> NDArray[np.float64]:
    """Eight numbers in [-1, 1) that follow from the key alone."""
    words = np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype=">u4")
    return words / 2.0**31 - 1.0


def _per_image(values: NDArray[np.float32]) -> Any:
    return keras.ops.reshape(values, (-1, 1, 1, 1))
