from __future__ import annotations

import numpy as np
import tensorflow as tf

from pipeline.dataset.resize import resize_uint8


def test_an_image_of_the_right_size_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)

    np.testing.assert_array_equal(resize_uint8(image, 24), image, strict=True)


def test_fine_stripes_average_out_instead_of_aliasing() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200

    small = resize_uint8(stripes, 8).numpy()

    assert abs(small[:, 1:-1].astype(int) - 100).max() <= 7


def test_extremes_stay_in_range_eagerly_and_inside_a_dataset() -> None:
    image = np.random.default_rng(1).choice(np.array([0, 255], np.uint8), (37, 61, 3))

    eager = resize_uint8(image, 20).numpy()
    mapped = next(iter(tf.data.Dataset.from_tensors(image).map(lambda x: resize_uint8(x, 20)))).numpy()

    assert eager.shape == (20, 20, 3)
    assert eager.dtype == np.uint8
    np.testing.assert_array_equal(mapped, eager)
    assert abs(float(eager.mean()) - float(image.mean())) < 3
