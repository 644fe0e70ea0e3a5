from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tensorflow as tf
from PIL import Image

from pipeline.dataset import encoding
from pipeline.dataset.encoding import Encoded
from pipeline.dataset.inspection import JPEG_WARNING


def gradient(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Smooth, so that JPEG and scaling change it little."""
    y, x = np.mgrid[0:height, 0:width]
    planes = np.stack([255 * y / height, 255 * x / width, 128 + 0 * x], axis=-1).astype(np.uint8)
    return Image.fromarray(planes).convert(mode)


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def encode(data: bytes, *notes: str, max_side: int | None = None, quality: int = 90) -> Encoded:
    return encoding.encode(data, notes, max_side=max_side, quality=quality)


def seen(image: Encoded) -> np.ndarray:
    """As TensorFlow shows it, which must be as its header says."""
    pixels = tf.io.decode_image(image.data, channels=3, expand_animations=False).numpy()
    assert pixels.shape == (image.height, image.width, 3)
    assert image.data.startswith(b"\xff\xd8" if image.format == "jpeg" else b"\x89PNG")
    return pixels


@pytest.mark.parametrize(
    "data",
    [
        saved(gradient(30, 40), "JPEG"),
        saved(gradient(30, 40, "L"), "JPEG"),
        saved(gradient(30, 40), "JPEG", progressive=True),
        saved(gradient(30, 40), "PNG"),
        saved(gradient(30, 40, "L"), "PNG"),
    ],
    ids=["JPEG", "grey JPEG", "progressive JPEG", "PNG", "grey PNG"],
)
def test_what_every_decoder_reads_alike_stays_as_it_is(data: bytes) -> None:
    image = encode(data, max_side=40)

    assert image.data is data
    seen(image)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(gradient(30, 40, "P"), "PNG"), "png"),
        (saved(gradient(30, 40, "RGBA"), "PNG"), "png"),
        (saved(gradient(30, 40), "PNG", exif=Image.Exif()) + b"", "png"),
        (saved(gradient(30, 40, "CMYK"), "JPEG"), "jpeg"),
        (saved(gradient(30, 40), "BMP"), "png"),
        (saved(gradient(30, 40), "TIFF"), "png"),
        (saved(gradient(30, 40), "WEBP", lossless=True), "png"),
    ],
    ids=["palette", "alpha", "plain PNG with empty EXIF", "CMYK", "BMP", "TIFF", "WebP"],
)
def test_other_images_become_jpeg_or_png_that_shows_the_same(data: bytes, expected: str) -> None:
    image = encode(data)

    assert image.format == expected
    original = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)
    assert np.abs(seen(image) - original).mean() < 2


@pytest.mark.parametrize("max_side", [None, 20], ids=["as large as it is", "scaled down"])
def test_a_turned_photograph_is_stored_upright(max_side: int | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    data = saved(gradient(30, 40), "JPEG", exif=exif, quality=95)

    image = encode(data, max_side=max_side)

    assert (image.height, image.width) == ((40, 30) if max_side is None else (20, 15))
    expected = np.asarray(gradient(30, 40).transpose(Image.Transpose.ROTATE_270).resize((image.width, image.height)))
    assert np.abs(seen(image).astype(int) - expected).mean() < 3


def test_a_png_without_its_end_is_written_anew(png: Callable[..., bytes]) -> None:
    cut = png(3, 10, 10)[:-12]
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_image(cut)

    np.testing.assert_array_equal(seen(encode(cut)), np.random.default_rng(3).integers(0, 256, (10, 10, 3), np.uint8))


def test_what_libjpeg_warned_of_at_ingest_is_written_anew() -> None:
    data = saved(gradient(30, 40), "JPEG")

    image = encode(data, "wrong-extension", JPEG_WARNING)

    assert image.data != data
    assert image.format == "jpeg"
    assert np.abs(seen(image) - np.asarray(gradient(30, 40), int)).mean() < 3


@pytest.mark.parametrize("name", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_larger_images_are_scaled_down_to_the_side(name: str, mode: str) -> None:
    data = saved(gradient(300, 400, mode), name, **({"quality": 95} if name == "JPEG" else {}))

    image = encode(data, max_side=100, quality=95)

    assert (image.format, image.height, image.width) == ("jpeg", 75, 100)
    expected = np.asarray(gradient(75, 100, mode).convert("RGB"), int)
    assert np.abs(seen(image) - expected).mean() < 3
    assert simplejpeg.decode_jpeg_header(image.data)[2] == ("YCbCr" if mode == "RGB" else "Gray")


def test_fine_stripes_are_averaged_when_scaled_down() -> None:
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 200

    small = seen(encode(saved(Image.fromarray(stripes), "PNG"), max_side=32, quality=95))

    assert np.abs(small.astype(int) - 100).max() <= 6


def test_an_extreme_shape_keeps_a_pixel() -> None:
    image = encode(saved(gradient(4, 4000), "JPEG"), max_side=50)

    assert (image.height, image.width) == (1, 50)
    seen(image)


def test_a_higher_quality_is_closer() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)
    data = saved(Image.fromarray(noise), "PNG")
    reference = np.asarray(Image.fromarray(noise).resize((100, 100), Image.Resampling.BILINEAR), int)

    off = [np.abs(seen(encode(data, max_side=100, quality=quality))[..., 0] - reference).mean() for quality in (30, 95)]

    assert off[1] < off[0] / 4


@pytest.mark.parametrize(
    ("max_side", "expected"),
    [(None, 80_000), (400, 80_000), (200, 20_000), (100, 5_000)],
    ids=["no limit", "within", "half the side", "quarter"],
)
def test_sizes_are_guessed_by_the_area(max_side: int | None, expected: int) -> None:
    assert encoding.size(80_000, 300, 400, max_side) == expected
