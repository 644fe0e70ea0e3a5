from __future__ import annotations

from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from pipeline.settings import Filter
from pipeline.training import filters

NAMES: tuple[Filter, ...] = get_args(Filter)


def grey(rows: np.ndarray) -> np.ndarray:
    """[H, W] to one image uint8 [1, H, W, 3]."""
    return np.repeat(rows.astype(np.uint8)[None, :, :, None], 3, axis=-1)


def photo(height: int, width: int, count: int = 1) -> np.ndarray:
    """Smooth blobs, so that there are edges to find, with noise."""
    y, x = np.mgrid[:height, :width]
    blobs = [np.sin(x / (5 + c)) * np.cos(y / (4 + n)) for n in range(count) for c in range(3)]
    smooth = 120 + 90 * np.stack(blobs, axis=-1).reshape(height, width, count, 3).transpose(2, 0, 1, 3)
    return (smooth + np.random.default_rng(0).integers(0, 40, smooth.shape)).astype(np.uint8)


def test_grayscale_is_that_of_pillow_to_the_last_level() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 120, 120, 3), np.uint8)
    images[0, 0, :8] = [[255 * (i >> c & 1) for c in range(3)] for i in range(8)]

    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])

    np.testing.assert_array_equal(filters.apply(images, ["grayscale"]), np.repeat(expected[..., None], 3, axis=-1))


def test_edges_of_a_full_step_are_white() -> None:
    step = np.repeat([[0, 0, 0, 0, 255, 255, 255, 255]], 8, axis=0)
    # Derivative of the smoothed step, (-1 -2 0 2 1) / 3: (2 + 1) / 3 beside it, 1 / 3 a pixel further.
    expected = [[0, 0, 85, 255, 255, 85, 0, 0]] * 8

    np.testing.assert_array_equal(filters.apply(grey(step), ["edges"]), grey(np.array(expected)))
    np.testing.assert_array_equal(filters.apply(grey(step.T), ["edges"]), grey(np.array(expected).T))


@given(arrays.arrays(np.uint8, st.tuples(st.integers(8, 12), st.integers(8, 12))), st.integers(1, 3))
@settings(max_examples=30)
def test_edges_turn_with_the_image_and_do_not_depend_on_the_sign(image: np.ndarray, turns: int) -> None:
    edges = filters.apply(grey(image), ["edges"])

    np.testing.assert_array_equal(
        filters.apply(grey(np.rot90(image, turns)), ["edges"]), np.rot90(edges, turns, (1, 2))
    )
    np.testing.assert_array_equal(filters.apply(grey(255 - image), ["edges"]), edges)


def test_the_contour_of_a_disc_is_a_closed_thin_circle() -> None:
    y, x = np.mgrid[:64, :64] - 31.5
    radius = np.hypot(x, y)

    contour = filters.apply(grey(np.where(radius < 20, 200, 30)), ["contours"])[0, :, :, 0]

    assert set(np.unique(contour)) == {0, 255}
    line = contour == 255
    assert np.abs(radius[line] - 20).max() < 1.5
    directions = np.degrees(np.arctan2(y[line], x[line]))
    assert np.diff(np.sort(directions)).max() < 6  # a pixel takes 3 degrees at this radius
    blocks = line[1:, 1:] & line[:-1, 1:] & line[1:, :-1] & line[:-1, :-1]
    assert not blocks.any()


def test_a_contour_starts_at_a_fifth_of_a_full_step_and_goes_on_to_a_tenth() -> None:
    def rows(steps: np.ndarray) -> np.ndarray:
        """The rows in which the contour of a step between columns 7 and 8 is drawn."""
        image = np.where(np.arange(16) < 8, 0, steps[:, None])
        drawn = filters.apply(grey(image), ["contours"])[0, :, :, 0]
        assert not np.delete(drawn, [7, 8], axis=1).any()
        return np.flatnonzero(drawn.any(axis=1))

    assert rows(np.full(16, 50)).tolist() == list(range(16))
    assert rows(np.full(16, 49)).size == 0
    fading = rows(np.arange(63, -1, -1))  # falls below 25 after row 38
    assert fading[0] == 0
    assert 37 <= fading[-1] <= 39
    assert len(fading) == fading[-1] + 1
    assert rows(np.arange(40, 8, -1)).size == 0


def test_clahe_keeps_the_colour() -> None:
    image = np.random.default_rng(0).integers(110, 150, (1, 32, 32, 3), np.uint8)

    changed = np.asarray(filters.Clahe()(image))

    change = (changed - image)[((changed > 0) & (changed < 255)).all(axis=-1)]
    np.testing.assert_allclose(change, np.repeat(change[:, :1], 3, axis=1), atol=1e-3)
    assert len(change) > 900
    assert change.std() > 5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 23), (30, 16)])
def test_any_size_gives_the_same_alone_in_a_batch_traced_and_compiled(name: Filter, height: int, width: int) -> None:
    images = photo(height, width, 3)
    (layer,) = filters.make([name])
    eager = np.asarray(layer(images))

    assert (eager.dtype, eager.shape) == (np.float32, images.shape)
    assert eager.min() >= 0
    assert eager.max() <= 255
    assert eager.std() > 0
    np.testing.assert_allclose(np.asarray(layer(images[1:2].astype(np.float32))), eager[1:2], atol=1e-3)
    any_batch = tf.function(layer, input_signature=[tf.TensorSpec((None, height, width, 3), tf.uint8)])
    np.testing.assert_allclose(any_batch(images), eager, atol=1e-3)
    np.testing.assert_allclose(tf.function(layer, jit_compile=True)(images), eager, atol=1e-3)


def test_a_model_keeps_the_numbers_of_its_filters(tmp_path: Path) -> None:
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    outputs = filters.Contours(low=10, high=15)(filters.Clahe(tiles=2, clip_limit=4.0)(inputs))
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    images = photo(32, 32)
    np.testing.assert_array_equal(loaded(images), model(images))
    assert not np.array_equal(loaded(images), filters.apply(images, ["clahe", "contours"]))


def test_people_see_what_the_model_sees() -> None:
    images = photo(24, 24, 2)

    seen = filters.apply(images, ["clahe", "edges"])

    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen, filters.apply(filters.apply(images, ["clahe"]), ["edges"]))
    np.testing.assert_array_equal(filters.apply(images, []), images)


@pytest.mark.parametrize("shape", [(7, 20, 3), (None, None, 3), (20, 20, 1)], ids=["small", "any", "one channel"])
def test_sizes_that_a_filter_cannot_take(shape: tuple[int | None, ...]) -> None:
    (layer,) = filters.make(["clahe"])

    with pytest.raises(ValueError, match="clahe: expected RGB images of a fixed size of at least 8 x 8"):
        layer(keras.Input(shape))
