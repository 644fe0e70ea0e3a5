from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline.dataset.resize import decode_square, resize_uint8


def test_an_image_of_the_right_size_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)

    np.testing.assert_array_equal(resize_uint8(image, 24), image, strict=True)


@pytest.mark.parametrize("shape", [(64, 64), (64, 8), (8, 64), (400, 24)], ids=str)
def test_fine_stripes_average_out_instead_of_aliasing(shape: tuple[int, int]) -> None:
    stripes = np.zeros((*shape, 3), np.uint8)
    stripes[::2, 1::2] = 200
    stripes[1::2, ::2] = 200

    small = resize_uint8(stripes, 8).numpy().astype(int)

    assert abs(small - 100).max() <= (1 if min(shape) > 8 else 100)
    assert abs(small.mean() - 100) <= 1


@pytest.mark.parametrize("factor", [1.2, 1.7, 2.0, 2.3, 2.6, 4.1])
def test_smooth_images_look_as_pillow_resizes_them(factor: float) -> None:
    height, width = round(40 * factor), round(40 * factor * 1.2)
    y, x = np.mgrid[0:height, 0:width]
    wave = 128 + 100 * np.sin(4 * y / height + 7 * x / width)
    image = np.repeat(wave[..., None], 3, axis=2).astype(np.uint8)

    ours = resize_uint8(image, 40).numpy().astype(int)

    expected = np.asarray(Image.fromarray(image).resize((40, 40), Image.Resampling.BILINEAR), int)
    assert np.abs(ours - expected).mean() < 1


def test_an_enlarged_image_is_interpolated() -> None:
    image = np.array([[0, 0], [200, 200]], np.uint8)[..., None].repeat(3, axis=2)

    np.testing.assert_array_equal(resize_uint8(image, 4)[:, 0, 0], [0, 50, 150, 200])


def test_extremes_stay_in_range_eagerly_and_inside_a_dataset() -> None:
    image = np.random.default_rng(1).choice(np.array([0, 255], np.uint8), (37, 61, 3))

    eager = resize_uint8(image, 20).numpy()
    mapped = next(iter(tf.data.Dataset.from_tensors(image).map(lambda x: resize_uint8(x, 20)))).numpy()

    assert eager.shape == (20, 20, 3)
    assert eager.dtype == np.uint8
    np.testing.assert_array_equal(mapped, eager)
    assert abs(float(eager.mean()) - float(image.mean())) < 3


def test_a_batch_is_resized_as_its_images_are() -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, 90, 50, 3), np.uint8)

    np.testing.assert_array_equal(resize_uint8(images, 16)[1], resize_uint8(images[1], 16))


def photograph(height: int, width: int) -> np.ndarray:
    """Like one: smooth with edges, in colour."""
    y, x = np.mgrid[0:height, 0:width]
    disc = (y / height - 0.4) ** 2 + (x / width - 0.6) ** 2 < 0.05
    planes = [200 * y / height, 60 + 150 * disc, 128 + 100 * np.sin(9 * x / width)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def encoded(image: np.ndarray, name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, name, **({"quality": 95} if name == "JPEG" else {}))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("shape", [(24, 40), (47, 64), (129, 64), (200, 600)], ids=str)
def test_decoding_gives_the_square_of_the_whole_image(name: str, shape: tuple[int, int]) -> None:
    image = photograph(*shape)

    square = decode_square(tf.constant(encoded(image, name)), 32).numpy()

    assert (square.shape, square.dtype) == ((32, 32, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BOX), int)
    assert np.abs(square - expected).mean() < 7


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("box", [(0, 0, 0.5, 0.5), (0.3, 0.25, 0.7, 0.5), (0.9, 0.9, 0.1, 0.1)], ids=str)
def test_only_the_box_is_shown(name: str, box: tuple[float, float, float, float]) -> None:
    image = photograph(200, 300)
    top, left, height, width = (round(share * side) for share, side in zip(box, (200, 300) * 2, strict=True))

    square = decode_square(tf.constant(encoded(image, name)), 24, tf.constant(box, tf.float32)).numpy()

    part = Image.fromarray(image[top : top + height, left : left + width])
    assert np.abs(square - np.asarray(part.resize((24, 24), Image.Resampling.BOX), int)).mean() < 6


def test_grey_jpegs_have_three_equal_channels() -> None:
    square = decode_square(tf.constant(encoded(photograph(50, 50)[..., 0], "JPEG")), 16).numpy()

    assert np.ptp(square, axis=2).max() == 0
