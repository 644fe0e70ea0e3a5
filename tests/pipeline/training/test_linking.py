from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.training import linking


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 50), st.floats(0.2, 0.8))
@settings(max_examples=60)
def test_what_is_kept_are_the_components_with_a_seed(seed: int, height: int, width: int, density: float) -> None:
    random = np.random.default_rng(seed)
    allowed = random.random((2, height, width)) < density
    seeds = random.random((2, height, width)) < 0.05

    components = [ndimage.label(image, np.ones((3, 3)))[0] for image in allowed]
    expected = [image & np.isin(c, c[s & image]) for image, c, s in zip(allowed, components, seeds, strict=True)]

    np.testing.assert_array_equal(linking.linked(seeds, allowed), expected)


def test_a_long_chain_is_followed_to_its_end() -> None:
    snake = np.zeros((1, 40, 70), bool)
    snake[0, ::2] = True
    snake[0, 1::4, -1] = snake[0, 3::4, 0] = True
    seed = np.zeros_like(snake)
    seed[0, 0, 0] = True

    np.testing.assert_array_equal(linking.linked(seed, snake), snake)
