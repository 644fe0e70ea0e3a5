from __future__ import annotations

import numpy as np
import pytest

from pipeline.training import equalisation


def equalise(image: np.ndarray, tiles: int, clip_limit: float = equalisation.LEVELS) -> np.ndarray:
    return np.asarray(equalisation.equalise(image[None].astype(np.float32), tiles=tiles, clip_limit=clip_limit))[0]


def test_one_tile_without_clipping_is_plain_equalisation() -> None:
    image = np.repeat([10, 20, 30, 40], 16).reshape(8, 8)

    # Shares 1/4, 1/2, 3/4, 1 of 255: 63.75, 127.5, 191.25, 255; halves go to the even level.
    np.testing.assert_array_equal(equalise(image, 1), np.repeat([64, 128, 191, 255], 16).reshape(8, 8))


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        # 256 pixels: at most 2 of a level. 254 go to levels 0-253, so 101 + 2 pixels lie at or below 100.
        (16, 103),  # 103 / 256 * 255 = 102.6
        # 64 pixels: at most 1. 63 go to levels 0, 4, ... 248: 26 + 1 at or below 100.
        (8, 108),  # 27 / 64 * 255 = 107.6
    ],
)
def test_clipping_leaves_a_flat_tile_almost_as_it_is(side: int, expected: int) -> None:
    assert np.unique(equalise(np.full((side, side), 100), 1, clip_limit=2.0)).tolist() == [expected]


def test_mappings_are_mixed_between_the_centres_of_tiles() -> None:
    image = np.repeat([[100] * 8 + [200] * 8], 16, axis=0)

    row = equalise(image, 2, clip_limit=2.0)[5]

    # Left tile: 100 -> 108 as above, 200 -> 52 / 64 * 255 = 207. Right: 100 -> 26 / 64 * 255 = 104, 200 -> 207.
    # The centres are at 4 and 12; from 5 on each pixel is 1/8 further.
    assert row.tolist() == [108] * 5 + [107.5, 107, 106.5] + [207] * 8


def test_a_side_that_does_not_divide_evenly_is_mirrored_as_opencv_does() -> None:
    """Expected: OpenCV 5.0, createCLAHE(clipLimit=2.0, tileGridSize=(2, 2)), rows 0, 15, 30, every fourth column."""
    y, x = np.mgrid[:31, :45]
    image = 60 + (x * x + 3 * x * y) % 97 + (x > 20) * y
    expected = [
        [44, 77, 175, 140, 168, 66, 217, 55, 142, 103, 129, 212],
        [44, 48, 116, 54, 54, 116, 80, 77, 136, 71, 69, 127],
        [44, 213, 60, 161, 132, 166, 129, 98, 128, 225, 195, 229],
    ]

    np.testing.assert_allclose(equalise(image, 2, clip_limit=2.0)[::15, ::4], expected, atol=0.5001)


def test_images_of_a_batch_have_their_own_histograms() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 19, 25)).astype(np.float32) * [[[0.1]], [[0.5]], [[1.0]]]
    images = np.rint(images).astype(np.float32)

    together = np.asarray(equalisation.equalise(images, tiles=4, clip_limit=3.0))

    np.testing.assert_array_equal(together, [equalise(image, 4, 3.0) for image in images])
