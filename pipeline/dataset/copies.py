"""Augmented copies of training images, made once and stored in shards of their own."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from keras import ops
from PIL import Image

from pipeline.dataset import augment, encoding, presets
from pipeline.dataset.encoding import Encoded
from pipeline.dataset.shards import Alter, Row
from pipeline.settings import Augment


def recipe(settings: Augment, quality: int) -> str:
    """Differs between makers that make different copies."""
    return f"{presets.resolve(settings)} {settings.seed} {quality}"


def maker(settings: Augment, quality: int) -> Alter:
    """Makes copy number k of an image by what `augment` draws for its view k, at its own size, as a JPEG.

    MixUp and CutMix, which need a batch, have no part in it.
    """
    policy = presets.resolve(settings)

    def alter(image: Encoded, row: Row) -> Encoded:
        picture: Image.Image = Image.open(io.BytesIO(image.data))
        ids, views = tf.constant([row.image_id]), tf.constant([row.copy], tf.int64)
        if policy.crop < 1:
            top, left, height, width = augment.crop(ids, views, policy=policy, seed=settings.seed)[0].numpy()
            across, down = picture.width, picture.height
            picture = picture.crop(
                (
                    round(left * across),
                    round(top * down),
                    max(round(left * across) + 1, round((left + width) * across)),
                    max(round(top * down) + 1, round((top + height) * down)),
                )
            )
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
