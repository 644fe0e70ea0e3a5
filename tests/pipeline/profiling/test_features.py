from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import signal

from pipeline.dataset.images import decode
from pipeline.dataset.reduced import Reduced, reduced
from pipeline.profiling import features


def copy(pixels: npt.NDArray[np.uint8]) -> Reduced:
    height, width = pixels.shape[:2]
    mode = "L"
    if pixels.ndim == 3:
        mode, pixels = "RGB", np.concatenate([pixels, np.full((height, width, 1), 99, np.uint8)], axis=2)
    return Reduced(pixels, "PNG", mode, width, height, 1234)


def measured(pixels: npt.NDArray[np.uint8]) -> dict[str, Any]:
    (row,) = features.measure([copy(pixels)]).to_pylist()
    return row


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

    assert features.dhash([Image.fromarray(pixels)]).tolist() == [-(2**63)]


def test_the_thumbnail_of_a_thumbnail_is_itself() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)

    assert measured(pixels)["thumbnail"] == pixels.tobytes()


def test_grey_pictures_measure_alike_as_l_and_as_rgb() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    as_l, as_rgb = measured(pixels), measured(np.stack([pixels] * 3, axis=-1))

    assert (as_l.pop("mode"), as_rgb.pop("mode")) == ("L", "RGB")
    assert as_l == as_rgb


def test_images_of_one_call_do_not_touch_each_other() -> None:
    generator = np.random.default_rng(0)
    shapes = [(40, 30, 3), (1, 1), (30, 40, 3), (200, 150), (250, 188, 3), (2, 9)]
    copies = [copy(generator.integers(0, 256, shape, np.uint8)) for shape in shapes]

    assert features.measure(copies).to_pylist() == [features.measure([one]).to_pylist()[0] for one in copies]


@pytest.mark.parametrize("stripes", [2, 5, 8], ids=lambda period: f"every-{period}-columns")
def test_colour_is_sampled_without_aliasing(stripes: int) -> None:
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[:, ::stripes, 0] = 255

    row = measured(pixels)

    assert row["mean_r"] == pytest.approx(1 / stripes, abs=0.02)
    assert row["saturation"] == pytest.approx(1 / stripes, abs=0.02)


@pytest.mark.parametrize(("shape", "step"), [((37, 23), 1), ((128, 30), 1), ((129, 23), 2), ((200, 31), 2)], ids=str)
def test_slopes_agree_with_a_plain_convolution(shape: tuple[int, int], step: int) -> None:
    luma = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    smooth, change = np.array([1, 2, 1]), np.array([-1, 0, 1])
    laplacian = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])

    def inner(kernel: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.asarray(signal.correlate2d(luma / 255, kernel, mode="valid"))[::step]

    slope = np.hypot(inner(np.outer(smooth, change)), inner(np.outer(change, smooth))) / 8
    row = measured(luma)

    assert row["sharpness"] == pytest.approx(inner(laplacian).var())
    assert row["edge_density"] == pytest.approx(np.mean(slope >= features.EDGE_SLOPE - 1e-9))


SAMPLE = Path(__file__).parents[4] / "shared/data/imagenet_sample"


@pytest.mark.skipif(not SAMPLE.exists(), reason="needs the ImageNet sample")
def test_a_picture_measures_alike_as_jpeg_and_as_png() -> None:
    """Else a new file format would look like drift. Seen over the whole sample: 0.2 of the pictures' spread at most."""
    jpegs = [path.read_bytes() for path in sorted(SAMPLE.iterdir())[::20]]
    pngs = [io.BytesIO() for _ in jpegs]
    for data, buffer in zip(jpegs, pngs, strict=True):
        decode(data, 10**9).image.save(buffer, "PNG", compress_level=1)
    ours = features.measure([reduced(data, features.MEASURED_SIDE) for data in jpegs])
    theirs = features.measure([reduced(buffer.getvalue(), features.MEASURED_SIDE) for buffer in pngs])

    for name in set(features.NUMERIC) - {"bytes"}:
        values = ours[name].to_numpy()
        difference = np.abs(values - theirs[name].to_numpy())
        assert np.median(difference) <= 0.02 * values.std(), name
        assert difference.max() <= 0.3 * values.std(), name


BOUNDS = {"sharpness": 16, "entropy": 8, "colourfulness": 2, "contrast": 0.5, "std_r": 0.5, "std_g": 0.5, "std_b": 0.5}


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))))
def test_every_image_stays_within_the_documented_ranges(pixels: npt.NDArray[np.uint8]) -> None:
    row = measured(pixels)

    unit = {name for name, value in row.items() if isinstance(value, float)} - {"aspect_ratio"}
    assert all(0 <= row[name] <= BOUNDS.get(name, 1) + 1e-9 for name in unit), row
    assert set(row) | set(features.IDENTITY) == set(features.SCHEMA.names)
