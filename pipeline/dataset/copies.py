"""Augmented copies of training images, made once and stored in shards of their own."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from pipeline.dataset import augment, encoding, presets
from pipeline.dataset.encoding import Encoded
from pipeline.dataset.presets import Policy
from pipeline.dataset.shards import Alter, Row
from pipeline.settings import Augment

VERSION = 1  # of what `augment` makes of a seed: raise it when that changes, so that stored copies are made again


def recipe(settings: Augment, quality: int) -> str:
    """Differs between makers that make different copies, and only between them."""
    return f"{VERSION} {_policy(settings)} {settings.seed} {quality}"


def maker(settings: Augment, quality: int) -> Alter:
    """Makes copy number k of an image by what `augment` draws for its view -k, at its own size, as a JPEG.

    The views that training makes count up from 1; a copy must not be one of them over again.
    """
    policy = _policy(settings)

    def alter(image: Encoded, row: Row) -> Encoded:
        picture: Image.Image = Image.open(io.BytesIO(image.data))
        ids, views = tf.constant([row.image_id]), tf.constant([-row.copy], tf.int64)
        if policy.crop < 1:
            box = augment.crop(ids, views, policy=policy, seed=settings.seed)[0].numpy()
            picture = picture.crop(_window(box, picture.height, picture.width))
        pixels = augment.altered(
            np.asarray(picture.convert("RGB"))[None],
            ids,
            views,
            [row.text not in policy.never_mirror],
            policy=policy,
            seed=settings.seed,
        )
        # A grey picture stays one: all changes of colour keep grey grey.
        return encoding.to_jpeg(Image.fromarray(ops.convert_to_numpy(pixels)[0]).convert(picture.mode), quality)

    return alter


def _policy(settings: Augment) -> Policy:
    """Less what has no part in copies: MixUp and CutMix need a batch, and some values mean nothing without others."""
    policy = replace(presets.resolve(settings), mixup=0.0, cutmix=0.0)
    if not policy.randaugment:
        policy = replace(policy, magnitude=0.0)
    if not policy.mirrors:
        policy = replace(policy, never_mirror=())
    if not policy.moves:
        policy = replace(policy, fill="nearest")
    return replace(policy, never_mirror=tuple(sorted(set(policy.never_mirror))))


def _window(box: NDArray[np.float32], height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in pixels, at least one of them each way, of a box as `augment.crop` draws it."""
    top, left = round(box[0] * height), round(box[1] * width)
    down, across = max(1, round(box[2] * height)), max(1, round(box[3] * width))
    top, left = min(top, height - down), min(left, width - across)
    return left, top, left + across, top + down
