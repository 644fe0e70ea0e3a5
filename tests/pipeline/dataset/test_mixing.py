from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.dataset import mixing
from pipeline.dataset.presets import Policy

SIDE = 20


def mixed(policy: Policy, step: int, *, count: int = 2, seed: int = 1) -> tuple[np.ndarray, ...]:
    """Black images of class 0 and weight 1, and white ones of class 1 and weight 3, in turn."""
    classes = np.arange(count, dtype=np.int64) % 2
    images = np.broadcast_to((255 * classes).astype(np.uint8)[:, None, None, None], (count, SIDE, SIDE, 3))
    weights = (1 + 2 * classes).astype(np.float32)
    found = mixing.mix(
        tf.constant(images), tf.constant(classes), tf.constant(weights), tf.constant(step, tf.int64),
        policy=policy, seed=seed, number=3,
    )  # fmt: skip
    return tuple(tensor.numpy() for tensor in found)


@pytest.mark.parametrize("policy", [Policy(mixup=1), Policy(cutmix=1), Policy(mixup=0.4, cutmix=1)], ids=str)
def test_targets_and_weights_say_how_much_of_each_image_the_pixels_show(policy: Policy) -> None:
    for step in range(20):
        images, targets, weights = mixed(policy, step, count=4)

        white = images.mean(axis=(1, 2, 3)) / 255
        np.testing.assert_allclose(targets, np.stack([1 - white, white, 0 * white], axis=1), atol=0.5 / 255 + 1e-6)
        np.testing.assert_allclose(weights, 1 * targets[:, 0] + 3 * targets[:, 1], rtol=1e-5)
        assert images.dtype == np.uint8
        assert targets.dtype == weights.dtype == np.float32


def test_mixup_blends_all_pixels_alike() -> None:
    images, targets, _ = mixed(Policy(mixup=1.0), 0)

    assert (images == images[:, :1, :1, :1]).all()
    assert 0 < targets[0, 0] < 1


def test_cutmix_puts_one_box_of_the_neighbour_into_each_image() -> None:
    areas = []
    for step in range(40):
        images, targets, _ = mixed(Policy(cutmix=1.0), step)
        patch = images[0, :, :, 0] == 255  # of the white neighbour in the black image
        assert set(np.unique(images)) <= {0, 255}
        np.testing.assert_array_equal(patch, patch.any(axis=1)[:, None] & patch.any(axis=0)[None])
        for line in (patch.any(axis=1), patch.any(axis=0)):
            assert np.abs(np.diff(line.astype(int))).sum() <= 2  # without a gap
        assert targets[0, 1] == pytest.approx(patch.mean(), abs=1e-6)
        areas.append(patch.mean())
    assert 0.1 < np.mean(areas) < 0.5  # half of the area on average, less what lies beyond the edge
    assert np.ptp(areas) > 0.4


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    """Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)); its tails differ with a as these do."""
    _, targets, _ = mixed(Policy(mixup=alpha), 5, count=4000)

    own = targets[np.arange(4000), np.arange(4000) % 2]
    assert own.mean() == pytest.approx(0.5, abs=0.03)
    assert own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_with_both_half_of_the_batches_are_of_each_kind() -> None:
    kinds = [set(np.unique(mixed(Policy(mixup=1.0, cutmix=1.0), step)[0])) <= {0, 255} for step in range(200)]

    assert 70 < sum(kinds) < 130


def test_a_step_can_be_repeated_and_is_unlike_the_next_and_another_seed() -> None:
    policy = Policy(mixup=1.0)

    def shares(step: int, seed: int = 1) -> Any:
        return mixed(policy, step, seed=seed)[1].tolist()

    assert shares(3) == shares(3)
    assert shares(3) != shares(4)
    assert shares(3) != shares(3, seed=2)


def test_within_tf_data_it_is_the_same() -> None:
    policy = Policy(mixup=0.4, cutmix=1.0)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8))
    classes, weights = tf.constant([0, 1, 2, 0], tf.int64), tf.ones(4)

    def mix(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return mixing.mix(images, classes, weights, step, policy=policy, seed=1, number=3)

    for step, found in enumerate(tf.data.Dataset.range(4).map(mix)):
        for one, other in zip(found, mix(tf.constant(step, tf.int64)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_image_without_a_neighbour_stays() -> None:
    images, targets, weights = mixed(Policy(mixup=1.0), 0, count=1)

    assert images.max() == 0
    np.testing.assert_allclose(targets, [[1, 0, 0]])
    np.testing.assert_allclose(weights, [1])
