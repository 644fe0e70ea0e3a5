import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipeline.dataset import images
from pipeline.dataset.images import Unreadable, decode, encode


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


GREY = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
COLOUR = Image.new("RGB", (4, 3), (200, 10, 90))
# Every one of its eight orientations looks different.
TURNED = Image.fromarray(np.linspace(0, 250, 24 * 16 * 3).astype(np.uint8).reshape(16, 24, 3))
JPEG = encoded(COLOUR.resize((64, 48)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "not-an-image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "not-an-image"),
        (JPEG[: len(JPEG) // 2], "damaged"),
        (encoded(COLOUR.resize((40, 30)), "PNG")[:60], "damaged"),
        (JPEG[:30], "damaged"),
        (encoded(Image.new("L", (101, 100)), "PNG"), "too-many-pixels"),
    ],
    ids=["empty", "html", "git-lfs", "truncated-jpeg", "truncated-png", "truncated-header", "bomb"],
)
def test_what_cannot_be_decoded_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(data, max_pixels=10_000)
    assert caught.value.reason == reason
    assert caught.value.detail


def rotated(orientation: int, name: str, **options: object) -> bytes:
    """A file that is stored so that its EXIF orientation turns it into `TURNED`."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = TURNED.transpose(undo[orientation]) if orientation in undo else TURNED
    return encoded(stored, name, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(name: str, orientation: int) -> None:
    decoded = decode(rotated(orientation, name, **({"lossless": True} if name == "WEBP" else {})), 10_000)

    assert decoded.image.size == TURNED.size
    np.testing.assert_allclose(np.asarray(decoded.image, int), np.asarray(TURNED, int), atol=3)
    assert decoded.as_stored == (orientation == 1 and name in {"JPEG", "PNG"})


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0no TIFF at all"], ids=["empty", "astray", "text"]
)
def test_broken_exif_does_not_cost_the_image(exif: bytes) -> None:
    assert decode(encoded(TURNED, "JPEG", exif=exif), 10_000).as_stored


def test_an_orientation_that_does_not_exist_means_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    assert decode(encoded(TURNED, "JPEG", exif=exif), 10_000).as_stored


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(np.array([[0, 65535], [257, 32896]], np.uint16)), [[0, 255], [1, 128]]),
        (Image.fromarray(np.full((2, 2), 256, np.uint16)), np.ones((2, 2))),
        (Image.new("RGBA", (2, 2), (9, 9, 9, 0)), np.full((2, 2, 3), 255)),
        (Image.new("1", (2, 2), 1), np.full((2, 2), 255)),
        (Image.new("LA", (2, 2), (7, 255)), np.full((2, 2), 7)),
        (Image.new("P", (2, 2)), np.zeros((2, 2, 3))),
    ],
    ids=["16-bit", "16-bit-is-rounded", "transparent-is-white", "bilevel", "grey-alpha", "palette"],
)
def test_every_mode_becomes_eight_bit_rgb_or_grey(image: Image.Image, expected: object) -> None:
    decoded = decode(encoded(image, "PNG"), 10_000)
    if image.mode == "LA":
        assert decoded.image.mode in {"L", "RGB"}
        assert int(np.asarray(decoded.image).max()) == 7
        return
    np.testing.assert_array_equal(np.asarray(decoded.image), expected)


# A TIFF of 2 x 2 pixels of 12 bits, packed, which Pillow reads but does not write: 0, 4095; 2048, 819.
TWELVE_BITS = b"II*\0" + struct.pack("<I", 14) + bytes.fromhex("000fff800333") + struct.pack("<H", 9)
for tag in [(256, 2), (257, 2), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, 6)]:
    TWELVE_BITS += struct.pack("<HHII", tag[0], 3, 1, tag[1])
TWELVE_BITS += bytes(4)


def tiff(values: object, dtype: type) -> bytes:
    return encoded(Image.fromarray(np.array(values, dtype)), "TIFF")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (TWELVE_BITS, [[0, 255], [128, 51]]),
        (tiff([[0, 65535], [13107, 257]], np.uint16), [[0, 255], [51, 1]]),
        (tiff([[0, 65535], [13107, -5]], np.int32), [[0, 255], [51, 0]]),
        (tiff([[0, 1], [0.2, np.nan]], np.float32), [[0, 255], [51, 0]]),
        (tiff([[0, 255], [51, 300]], np.float32), [[0, 255], [51, 255]]),
    ],
    ids=["12-bit", "16-bit", "32-bit", "float-0-1", "float-0-255"],
)
def test_deep_grey_is_scaled_from_its_real_depth(data: bytes, expected: object) -> None:
    np.testing.assert_array_equal(np.asarray(decode(data, 10_000).image), expected)


def test_cmyk_jpeg_is_read_as_adobe_writes_it() -> None:
    # Photoshop stores ink inverted, 255 for none: these samples are no cyan, full magenta, full yellow, no black.
    samples = np.tile(np.array([255, 0, 0, 255], np.uint8), (8, 8, 1))
    decoded = decode(simplejpeg.encode_jpeg(samples, colorspace="CMYK", quality=100), 10_000)
    red, green, blue = np.asarray(decoded.image)[0, 0]

    assert (decoded.mode, decoded.image.mode, decoded.as_stored) == ("CMYK", "RGB", False)
    assert red > 250
    assert max(green, blue) < 5


def test_the_first_picture_of_a_phones_mpo_is_a_jpeg() -> None:
    data = encoded(TURNED, "MPO", save_all=True, append_images=[COLOUR])
    decoded = decode(data, 10_000)

    assert (decoded.format, decoded.image.size, decoded.as_stored) == ("JPEG", TURNED.size, True)


def test_the_limit_on_pixels_is_ours_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(JPEG, 64 * 48).image.size == (64, 48)


def test_a_transparent_palette_is_laid_on_white() -> None:
    image = Image.new("P", (3, 2), 1)
    image.putpalette([0, 0, 0, 200, 10, 90])
    image.putpixel((0, 0), 0)
    pixels = np.asarray(decode(encoded(image, "PNG", transparency=0), 10_000).image)

    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [200, 10, 90]


def test_only_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    for name in ("GIF", "PNG", "WEBP", "TIFF"):
        data = encoded(frames[0], name, save_all=True, append_images=frames[1:])
        pixels = np.asarray(decode(data, 10_000).image, int)
        np.testing.assert_allclose(pixels, np.full((6, 8, 3), (255, 0, 0)), atol=3)


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_plain_bytes_are_kept_as_they_are(image: Image.Image) -> None:
    data = encoded(image, "PNG")
    assert encode(decode(data, 10_000), data) == (data, "png")


def test_others_are_encoded_anew_without_loss_unless_they_were_jpeg() -> None:
    data = encoded(COLOUR, "BMP")
    again, name = encode(decode(data, 10_000), data)
    assert name == "png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(again))), np.asarray(COLOUR))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


LONG = b"a" * 2_000_000


@pytest.mark.parametrize(
    "bulky",
    [
        chunk(b"zTXt", b"parameters\0\0" + zlib.compress(LONG)),
        chunk(b"iTXt", b"parameters\0\1\0en\0\0" + zlib.compress(LONG)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(LONG)),
        chunk(b"tEXt", b"parameters\0" + LONG) * 40,
    ],
    ids=["zTXt", "iTXt", "iCCP", "tEXt"],
)
@pytest.mark.parametrize("place", [33, -12], ids=["before-the-pixels", "behind-the-pixels"])
def test_a_png_is_read_without_texts_that_are_too_long(bulky: bytes, place: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for data, size in [(encoded(TURNED, "PNG"), (24, 16)), (encoded(TURNED, "PNG", exif=exif), (16, 24))]:
        decoded = decode(data[:place] + bulky + data[place:], 10_000)
        assert decoded.image.size == size
        np.testing.assert_array_equal(np.asarray(decoded.image), np.asarray(decode(data, 10_000).image))


def test_tensorflow_reads_a_png_with_long_texts_as_it_is_stored() -> None:
    tf = pytest.importorskip("tensorflow")
    plain = encoded(TURNED, "PNG")
    data = plain[:33] + chunk(b"zTXt", b"parameters\0\0" + zlib.compress(LONG)) + plain[33:]
    kept, name = encode(decode(data, 10_000), data)

    assert (kept, name) == (data, "png")
    np.testing.assert_array_equal(tf.io.decode_png(kept).numpy(), np.asarray(TURNED))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F", "RGBA", "LA", "P"])
def test_converting_strip_by_strip_changes_nothing(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 256, (16, 24, 4), np.uint8)
    if mode[0] in "IF":
        dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[mode]
        image = Image.fromarray((values[..., 0] * (257 if mode != "F" else 1 / 200)).astype(dtype))
    else:
        image = Image.fromarray(values).convert(mode)
    assert image.mode == mode
    data = encoded(image, "TIFF")
    whole = np.asarray(decode(data, 10_000).image)
    monkeypatch.setattr(images, "_STRIP", 5 * 24)

    np.testing.assert_array_equal(np.asarray(decode(data, 10_000).image), whole)
    assert whole.std() > 0


def test_sixteen_bit_colour_is_reduced_once_for_all_readers() -> None:
    header, pixels = encoded(Image.new("RGB", (1, 1)), "PNG"), zlib.compress(b"\0" + bytes.fromhex("ffff80ff0001"))

    deep = header[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)) + chunk(b"IDAT", pixels)
    decoded = decode(deep + chunk(b"IEND", b""), 10_000)

    assert not decoded.as_stored
    assert np.asarray(decoded.image).tolist() == [[[255, 128, 0]]]
