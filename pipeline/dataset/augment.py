"""Altered copies of training images: cropped, moved, turned, mirrored, recoloured, partly hidden.

What happens to an image follows from the seed, the image's id and the number of the view alone, not from the order in
which images come or from the others of a batch, so a view can be computed again. It is drawn on the host (`draw`,
`crop`) and carried out wherever the model runs (`apply`): all movement is one affine map with one interpolation, since
maps in sequence would blur the image each time, and all linear changes of colour are one matrix.

Leading axes of all arrays, written `...`, are any number of images. Pixels are 0-255.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from pipeline.dataset import randaugment
from pipeline.dataset.presets import Policy
from pipeline.dataset.warp import warp

Draws = Mapping[str, Any]  # name to array; what a policy does not do has no entry

# One number in 0-1 for each, then two for each operation of RandAugment.
_NUMBERS = (
    *("mirror_x", "mirror_y", "turn", "zoom", "shift_x", "shift_y", "shear_x", "shear_y"),
    *("brightness", "contrast", "saturation", "hue", "crop_area", "crop_ratio", "crop_x", "crop_y"),
    *("erase", "erase_area", "erase_ratio", "erase_x", "erase_y"),
)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_RATIO = 4 / 3  # crops are at most so much wider or higher than the image (Szegedy et al. 2015)
_ERASED_SHARE = 0.5  # of the images (Zhong et al. 2020, as are the next two)
_ERASED_AT_LEAST = 0.02  # of the area
_ERASED_RATIO = 1 / 0.3
_GREY = 127.0  # what erased pixels show: the middle of the range, which most backbones see as zero
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_TO_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32)  # NTSC 1953
_TO_RGB = np.linalg.inv(_TO_YIQ)


def draw(ids: Any, views: Any, mirrored: Any, *, policy: Policy, seed: int, height: int, width: int) -> Draws:
    """What happens to images of `height` x `width` pixels.

    Args:
        ids: string [...]; views: int64 [...], the number of the view.
        mirrored: bool [...], whether an image may be mirrored.

    Returns:
        `affine` float32 [..., 6] from output to input pixels, as `warp` takes them;
        `matrix` float32 [..., 3, 3] or `gain` float32 [...], `pivot` and `shift` float32 [...]: a pixel x becomes
        matrix (or gain) x + pivot * mean luma of the image + shift; `erased` float32 [..., 4]: top, left, bottom and
        right as shares; and what `randaugment.draw` returns.
    """
    unit = _numbers(ids, views, seed, policy)
    extra = randaugment.draw(unit["randaugment"], policy) if policy.randaugment else randaugment.NOTHING
    found: dict[str, Any] = dict(extra.tables)
    if policy.moves:
        found["affine"] = _affine(unit, tf.convert_to_tensor(mirrored), extra, policy, height, width)
    if policy.brightness or policy.contrast or policy.saturation or policy.hue or policy.randaugment:
        found |= _colour(unit, extra, policy)
    if policy.erase:
        found["erased"] = _erased(unit, policy)
    return found


def crop(ids: Any, views: Any, *, policy: Policy, seed: int) -> Any:
    """Float32 [..., 4]: top, left, height and width of a random crop, as shares of the image (Szegedy et al. 2015)."""
    unit = _numbers(ids, views, seed, policy)
    area = policy.crop + (1 - policy.crop) * unit["crop_area"]
    height, width = _sides(area, _RATIO ** _signed(unit["crop_ratio"]))
    return tf.stack([(1 - height) * unit["crop_y"], (1 - width) * unit["crop_x"], height, width], axis=-1)


def apply(images: Any, draws: Draws, *, fill: str) -> Any:
    """Images and result: uint8 [N, H, W, 3]. `fill` is where pixels from outside come from, as in `Policy`."""
    x = ops.cast(images, "float32")
    if "affine" in draws:
        x = warp(x, draws["affine"], fill)
    x = randaugment.sharpen(x, draws)
    if "shift" in draws:
        offset = draws["shift"] + (draws["pivot"] * _mean_luma(x) if "pivot" in draws else 0.0)
        x = _recoloured(x, draws) + _per_image(offset)
    x = ops.clip(ops.round(x), 0.0, 255.0)
    x = randaugment.tabulate(x, draws)
    if "erased" in draws:
        x = ops.where(_inside(draws["erased"], *ops.shape(x)[1:3]), _GREY, x)
    return ops.cast(x, "uint8")


def altered(images: Any, ids: Any, views: Any, mirrored: Any, *, policy: Policy, seed: int) -> Any:
    """`apply` of what `draw` draws, at once; images uint8 [N, H, W, 3]."""
    height, width = images.shape[1:3]
    draws = draw(ids, views, mirrored, policy=policy, seed=seed, height=height, width=width)
    return apply(images, {name: ops.convert_to_tensor(array) for name, array in draws.items()}, fill=policy.fill)


def _numbers(ids: Any, views: Any, seed: int, policy: Policy) -> dict[str, Any]:
    """Float32 [...] in [0, 1) for every name, and `randaugment`, [..., operations, 2]."""
    count = len(_NUMBERS) + 2 * policy.randaugment
    key = tf.strings.join([tf.strings.as_string(tf.cast(views, tf.int64)), ids, str(seed)], separator="/")
    state = tf.cast(tf.strings.to_hash_bucket_fast(key, 2**63 - 1), tf.uint64)
    # SplitMix64 (Steele, Lea and Flood 2014): counting on from a hash is a generator that needs no state.
    word = state[..., None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, np.uint64(shift))) * np.uint64(factor)
    word = tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, np.uint64(31)))
    unit = tf.cast(tf.bitwise.right_shift(word, np.uint64(40)), tf.float32) / 2.0**24
    found = {name: unit[..., number] for number, name in enumerate(_NUMBERS)}
    rest = unit[..., len(_NUMBERS) :]
    return found | {"randaugment": tf.reshape(rest, tf.concat([tf.shape(rest)[:-1], [policy.randaugment, 2]], axis=0))}


def _affine(
    unit: Mapping[str, Any], mirrored: Any, extra: randaugment.Extra, policy: Policy, height: int, width: int
) -> Any:
    angle = 2 * np.pi * (policy.rotation * _signed(unit["turn"]) + extra.turn)
    scale = 1 + policy.zoom * _signed(unit["zoom"])
    shear_x = policy.shear * _signed(unit["shear_x"]) + extra.shear_x
    shear_y = policy.shear * _signed(unit["shear_y"]) + extra.shear_y
    shift_x = width * (policy.translation * _signed(unit["shift_x"]) + extra.shift_x)
    shift_y = height * (policy.translation * _signed(unit["shift_y"]) + extra.shift_y)
    mirror_x = tf.where(mirrored & policy.horizontal_flip & (unit["mirror_x"] < 0.5), -1.0, 1.0)
    mirror_y = tf.where(mirrored & policy.vertical_flip & (unit["mirror_y"] < 0.5), -1.0, 1.0)
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    # Turn and scale, after the shear, after the mirror.
    a, b = (cos - sin * shear_y) * mirror_x, (cos * shear_x - sin) * mirror_y
    c, d = (sin + cos * shear_y) * mirror_x, (sin * shear_x + cos) * mirror_y
    x, y = (width - 1) / 2, (height - 1) / 2  # the image turns about its middle, not about its corner
    return tf.stack([a, b, x - a * x - b * y + shift_x, c, d, y - c * x - d * y + shift_y], axis=-1)


def _colour(unit: Mapping[str, Any], extra: randaugment.Extra, policy: Policy) -> dict[str, Any]:
    saturation = (1 + policy.saturation * _signed(unit["saturation"])) * extra.saturation
    gain = (1 + policy.contrast * _signed(unit["contrast"])) * extra.contrast
    found = {"shift": 255 * policy.brightness * _signed(unit["brightness"]) * extra.brightness}
    if policy.contrast or policy.randaugment:
        found["pivot"] = (1 - gain) * extra.brightness
    if not (policy.saturation or policy.hue or policy.randaugment):
        return found | ({"gain": gain} if policy.contrast else {})
    angle = 2 * np.pi * policy.hue * _signed(unit["hue"])
    # Hue turns the plane of I and Q, saturation stretches it (as NVIDIA DALI's color_twist does); luma stays.
    cos, sin = saturation * tf.cos(angle), saturation * tf.sin(angle)
    one, zero = tf.ones_like(cos), tf.zeros_like(cos)
    turned = tf.stack(
        [
            tf.stack([one, zero, zero], axis=-1),
            tf.stack([zero, cos, -sin], axis=-1),
            tf.stack([zero, sin, cos], axis=-1),
        ],
        axis=-2,
    )
    matrix = tf.einsum("ij,...jk,kl->...il", _TO_RGB, turned, _TO_YIQ)
    return found | {"matrix": matrix * (gain * extra.brightness)[..., None, None]}


def _erased(unit: Mapping[str, Any], policy: Policy) -> Any:
    least = min(_ERASED_AT_LEAST, policy.erase)
    area = least + (policy.erase - least) * unit["erase_area"]
    height, width = _sides(area, _ERASED_RATIO ** _signed(unit["erase_ratio"]))
    top, left = (1 - height) * unit["erase_y"], (1 - width) * unit["erase_x"]
    box = tf.stack([top, left, top + height, left + width], axis=-1)
    return tf.where((unit["erase"] < _ERASED_SHARE)[..., None], box, 0.0)


def _signed(unit: Any) -> Any:
    return 2 * unit - 1


def _sides(area: Any, ratio: Any) -> tuple[Any, Any]:
    """Height and width of a box of this area (0-1) and of this ratio of both, as far as it fits: neither exceeds 1."""
    stretch = tf.clip_by_value(tf.sqrt(ratio), tf.sqrt(area), 1 / tf.sqrt(area))
    return tf.sqrt(area) * stretch, tf.sqrt(area) / stretch


def _recoloured(x: Any, draws: Draws) -> Any:
    if "gain" in draws:
        return x * _per_image(draws["gain"])
    if "matrix" not in draws:
        return x
    matrix = draws["matrix"]
    # No matrix product: accelerators round its factors to 10 bits (TF32), and grey would not stay grey.
    return sum(x[..., channel : channel + 1] * matrix[:, None, None, :, channel] for channel in range(3))


def _mean_luma(x: Any) -> Any:
    """Float32 [N], to a 16th of a grey level. Sums of whole numbers do not depend on how a device splits them."""
    height, width = x.shape[1:3]
    whole = ops.cast(ops.round(x), "int32")
    luma = (19595 * whole[..., 0] + 38470 * whole[..., 1] + 7471 * whole[..., 2] + 32768) // 65536  # as Pillow's
    rows = ops.sum(luma, axis=2) * 16 // width
    return ops.cast(ops.sum(rows, axis=1), "float32") / (16.0 * height)


def _inside(box: Any, height: int, width: int) -> Any:
    """Bool [N, H, W, 1]: the pixels whose middle lies in the box, [N, 4] as shares."""
    y = (ops.cast(ops.arange(height), "float32") + 0.5) / height
    x = (ops.cast(ops.arange(width), "float32") + 0.5) / width
    rows = (y >= box[:, 0:1]) & (y < box[:, 2:3])
    columns = (x >= box[:, 1:2]) & (x < box[:, 3:4])
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def _per_image(values: Any) -> Any:
    return ops.reshape(values, (-1, 1, 1, 1))
