"""MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019): every image of a batch takes something of its neighbour.

With both, each batch draws one of the two. Targets become probabilities, and weights are mixed as the images are.
This happens within tf.data, before images are altered, because there a batch is whole: a strategy that deals it out to
several devices comes later.
"""

from __future__ import annotations

import tensorflow as tf

from pipeline.dataset.presets import Policy


def mix(
    images: tf.Tensor,
    classes: tf.Tensor,
    weights: tf.Tensor,
    step: tf.Tensor,
    *,
    policy: Policy,
    seed: int,
    number: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mix a batch; what is drawn follows from `seed` and `step`.

    Args:
        images: uint8 [N, S, S, 3]; classes: int64 [N]; weights: float32 [N]; number: of classes.

    Returns:
        Images, uint8 as they were, targets, float32 [N, number], and weights, float32 [N].
    """
    count, side = tf.shape(images)[0], tf.shape(images)[1]
    seeds = tf.unstack(
        tf.random.experimental.stateless_split(tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)]), 4)
    )
    cuts = tf.random.stateless_uniform([], seeds[0]) < _share_of_cutmix(policy)
    blend = tf.where(cuts, 1.0, _beta(policy.mixup, count, seeds[1]))
    patch = _patches(tf.where(cuts, 1 - _beta(policy.cutmix, count, seeds[2]), 0.0), side, seeds[3])

    pixels = tf.cast(images, tf.float32)
    partner = tf.roll(pixels, shift=1, axis=0)
    mixed = _per_image(blend) * pixels + _per_image(1 - blend) * partner
    mixed = tf.where(patch[..., None], partner, mixed)
    kept = blend * (1 - tf.reduce_mean(tf.cast(patch, tf.float32), axis=(1, 2)))
    targets = tf.one_hot(classes, number)
    return (
        tf.cast(mixed + 0.5, tf.uint8),
        kept[:, None] * targets + (1 - kept)[:, None] * tf.roll(targets, shift=1, axis=0),
        kept * weights + (1 - kept) * tf.roll(weights, shift=1, axis=0),
    )


def _share_of_cutmix(policy: Policy) -> float:
    if policy.mixup and policy.cutmix:
        return 0.5
    return 1.0 if policy.cutmix else 0.0


def _beta(alpha: float, count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Float32 [count] from Beta(alpha, alpha): the share of the first of two equal gamma variables in their sum."""
    if alpha == 0:
        return tf.ones([count])
    one, other = tf.unstack(tf.random.stateless_gamma([2, count], seed, alpha))
    return tf.math.divide_no_nan(one, one + other)


def _patches(area: tf.Tensor, side: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Bool [N, S, S]: squares of such shares of the area, cut off where they reach over the edge."""
    pixel = (tf.cast(tf.range(side), tf.float32) + 0.5) / tf.cast(side, tf.float32)
    centre = tf.random.stateless_uniform([2, tf.shape(area)[0], 1], seed)
    inside = tf.abs(pixel - centre) < (tf.sqrt(area) / 2)[:, None]  # [2, N, S]
    return inside[0, :, :, None] & inside[1, :, None, :]


def _per_image(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, (-1, 1, 1, 1))
