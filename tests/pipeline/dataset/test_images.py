import io

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.images import Unreadable, decode, encode


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


GREY = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
COLOUR = Image.new("RGB", (4, 3), (200, 10, 90))
JPEG = encoded(COLOUR.resize((64, 48)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "not-an-image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "not-an-image"),
        (JPEG[: len(JPEG) // 2], "damaged"),
        (encoded(COLOUR.resize((40, 30)), "PNG")[:60], "damaged"),
        (encoded(Image.new("L", (101, 100)), "PNG"), "too-many-pixels"),
    ],
    ids=["empty", "html", "git-lfs", "truncated-jpeg", "truncated-png", "bomb"],
)
def test_what_cannot_be_decoded_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(data, max_pixels=10_000)
    assert caught.value.reason == reason
    assert caught.value.detail


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: viewers rotate by 90 degrees clockwise
    decoded = decode(encoded(COLOUR.resize((40, 20)), "JPEG", exif=exif), 10_000)
    assert decoded.image.size == (20, 40)
    assert not decoded.as_stored


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(np.array([[0, 65535], [257, 32896]], np.uint16)), [[0, 255], [1, 128]]),
        (Image.new("RGBA", (2, 2), (9, 9, 9, 0)), np.full((2, 2, 3), 255)),
        (Image.new("1", (2, 2), 1), np.full((2, 2), 255)),
        (Image.new("LA", (2, 2), (7, 255)), np.full((2, 2), 7)),
        (Image.new("P", (2, 2)), np.zeros((2, 2, 3))),
    ],
    ids=["16-bit", "transparent-is-white", "bilevel", "grey-alpha", "palette"],
)
def test_every_mode_becomes_eight_bit_rgb_or_grey(image: Image.Image, expected: object) -> None:
    decoded = decode(encoded(image, "PNG"), 10_000)
    if image.mode == "LA":
        assert decoded.image.mode in {"L", "RGB"}
        assert int(np.asarray(decoded.image).max()) == 7
        return
    np.testing.assert_array_equal(np.asarray(decoded.image), expected)


def test_cmyk_jpeg_is_converted() -> None:
    decoded = decode(encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG"), 10_000)
    red, green, blue = np.asarray(decoded.image)[0, 0]
    assert (decoded.mode, decoded.image.mode) == ("CMYK", "RGB")
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_plain_bytes_are_kept_as_they_are(image: Image.Image) -> None:
    data = encoded(image, "PNG")
    assert encode(decode(data, 10_000), data) == (data, "png")


def test_others_are_encoded_anew_without_loss_unless_they_were_jpeg() -> None:
    data = encoded(COLOUR, "BMP")
    again, name = encode(decode(data, 10_000), data)
    assert name == "png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(again))), np.asarray(COLOUR))
