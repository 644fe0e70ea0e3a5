from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pipeline.dataset.images import Decoded
from pipeline.profiling import features


def measured(pixels: npt.NDArray[np.uint8] | Image.Image) -> features.Row:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    return features.measure(Decoded(image, "PNG", image.mode, as_stored=True), size=1234)


def grey(*values: int, height: int = 16) -> npt.NDArray[np.uint8]:
    return np.tile(np.array(values, np.uint8), (height, 1))


def solid(red: int, green: int, blue: int) -> npt.NDArray[np.uint8]:
    return np.full((8, 8, 3), (red, green, blue), np.uint8)


HALVES = grey(*[0] * 8, *[255] * 8)  # black left, white right


@pytest.mark.parametrize(
    ("pixels", "feature", "expected"),
    [
        pytest.param(grey(*[51] * 9), "brightness", 0.2, id="brightness"),
        pytest.param(grey(*[51] * 9), "contrast", 0, id="contrast-flat"),
        pytest.param(HALVES, "contrast", 0.5, id="contrast-of-halves"),
        pytest.param(grey(*[51] * 9), "entropy", 0, id="entropy-flat"),
        pytest.param(grey(0, 80, 160, 240), "entropy", 2, id="entropy-of-four-equal-greys"),
        # 14 x 14 inner pixels, of which the two columns beside the step have a slope and a Laplacian of +-1.
        pytest.param(HALVES, "edge_density", 1 / 7, id="edges"),
        pytest.param(HALVES, "sharpness", 1 / 7, id="sharpness"),
        pytest.param(grey(*range(0, 160, 10)), "sharpness", 0, id="a-ramp-is-not-sharp"),
        pytest.param(grey(*range(0, 160, 10)), "edge_density", 0, id="a-ramp-of-0.04-per-pixel-has-no-edge"),
        pytest.param(solid(255, 0, 0), "mean_r", 1, id="red"),
        pytest.param(solid(255, 0, 0), "mean_g", 0, id="no-green"),
        pytest.param(solid(200, 100, 100), "saturation", 0.5, id="saturation"),
        pytest.param(solid(0, 0, 0), "saturation", 0, id="black-has-no-saturation"),
        # One colour has no spread; its offset is (1, 1/2) on the opponent axes.
        pytest.param(solid(255, 0, 0), "colourfulness", 0.3 * 1.25**0.5, id="colourfulness"),
        pytest.param(solid(90, 90, 90), "colourfulness", 0, id="grey-is-colourless"),
        pytest.param(HALVES, "aspect_ratio", 1, id="square"),
        pytest.param(np.zeros((10, 40), np.uint8), "aspect_ratio", 4, id="wide"),
        pytest.param(np.zeros((10, 40), np.uint8), "width", 40, id="width"),
        pytest.param(HALVES, "bytes", 1234, id="bytes"),
        pytest.param(np.zeros((1, 1), np.uint8), "sharpness", 0, id="one-pixel"),
        pytest.param(grey(*range(0, 180, 20)), "dhash", -1, id="dhash-every-bit-of-a-rising-ramp"),
        pytest.param(grey(*range(180, 0, -20)), "dhash", 0, id="dhash-no-bit-of-a-falling-ramp"),
    ],
)
def test_hand_computed(pixels: npt.NDArray[np.uint8], feature: str, expected: float) -> None:
    assert measured(pixels)[feature] == pytest.approx(expected, abs=1e-6)


def test_dhash_starts_with_the_top_left_pixel_pair() -> None:
    pixels = np.zeros((8, 9), np.uint8)
    pixels[0, 1:] = 255  # only the first pair of the first row rises

    assert features.dhash(Image.fromarray(pixels)) == -(2**63)


def test_grey_pictures_measure_alike_as_l_and_as_rgb() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    as_l, as_rgb = measured(pixels), measured(np.stack([pixels] * 3, axis=-1))

    assert (as_l.pop("mode"), as_rgb.pop("mode")) == ("L", "RGB")
    assert as_l == as_rgb


def test_a_large_image_keeps_its_size_and_measures_like_its_reduced_copy() -> None:
    field = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    large = Image.fromarray(field).resize((1600, 1200), Image.Resampling.BICUBIC)
    row, reduced = measured(large), measured(large.resize((256, 192), Image.Resampling.BILINEAR))

    assert (row["width"], row["height"]) == (1600, 1200)
    assert row["sharpness"] == pytest.approx(reduced["sharpness"], rel=0.05)
    assert row["edge_density"] == pytest.approx(reduced["edge_density"], abs=0.01)
    assert bin((int(row["dhash"]) ^ int(reduced["dhash"])) & (2**64 - 1)).count("1") <= 1


BOUNDS = {"sharpness": 16, "entropy": 8, "colourfulness": 2, "contrast": 0.5, "std_r": 0.5, "std_g": 0.5, "std_b": 0.5}


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))))
def test_every_image_stays_within_the_documented_ranges(pixels: npt.NDArray[np.uint8]) -> None:
    row = measured(pixels)

    unit = {name for name, value in row.items() if isinstance(value, float)} - {"aspect_ratio"}
    assert all(0 <= row[name] <= BOUNDS.get(name, 1) + 1e-9 for name in unit), row
    assert set(row) | set(features.IDENTITY) == set(features.SCHEMA.names)
    identity = {"image_id": "a", "batch": "0001", "label": "x"}
    assert pa.Table.from_pylist([identity | row], schema=features.SCHEMA).num_rows == 1
