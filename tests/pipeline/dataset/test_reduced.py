from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset import orientation
from pipeline.dataset.images import Unreadable, decode, read_header
from pipeline.dataset.reduced import reduced

SAMPLE = Path(__file__).parents[4] / "shared/data/imagenet_sample"
SIDE = 256
FIELD = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def exif(order: str, entries: list[tuple[int, int]]) -> bytes:
    """EXIF of 16-bit entries: tag and value, in one byte order, II or MM."""
    sign = "<" if order == "II" else ">"
    body = struct.pack(f"{sign}H", len(entries))
    body += b"".join(struct.pack(f"{sign}HHIHxx", tag, 3, 1, value) for tag, value in entries)
    return b"Exif\0\0" + order.encode() + struct.pack(f"{sign}HI", 42, 8) + body + bytes(4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((256, 100), (256, 100)),
        ((257, 100), (129, 50)),
        ((375, 500), (188, 250)),
        ((513, 3), (129, 1)),
        ((2049, 1025), (129, 65)),
        ((4100, 20), (129, 1)),
        ((1, 1), (1, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_sides_are_halved_until_the_longer_fits(name: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    copy = reduced(encoded(FIELD.resize(size), name), SIDE)

    assert (copy.width, copy.height) == size
    assert copy.pixels.shape == (*expected[::-1], 4)
    assert copy.image().size == expected


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(250, 190), (500, 375), (1030, 700), (3000, 2200)], ids=str)
def test_every_pixel_is_the_mean_of_a_square_of_the_original(size: tuple[int, int], mode: str) -> None:
    data = encoded(FIELD.resize(size, Image.Resampling.BICUBIC).convert(mode), "JPEG", quality=95)
    copy = reduced(data, SIDE)
    whole = decode(data, 10**9).image
    factor = -(-size[0] // copy.pixels.shape[1])
    means = np.asarray(whole.reduce(factor), int).reshape(*copy.pixels.shape[:2], -1)

    ours = np.asarray(copy.image().convert(mode), int).reshape(means.shape)
    assert (copy.mode, copy.format, copy.bytes) == (mode, "JPEG", len(data))
    assert np.abs(ours - means).mean() < 1
    assert np.abs(ours - means).max() < 16


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("turn", range(10))
def test_the_copy_is_as_upright_as_the_decoded_image(turn: int, order: str) -> None:
    data = encoded(FIELD.resize((600, 400)), "JPEG", exif=exif(order, [(0x0106, 2), (orientation.TAG, turn)]))
    copy, whole = reduced(data, SIDE), decode(data, 10**9).image

    assert (copy.width, copy.height) == whole.size
    assert np.abs(np.asarray(copy.image().convert("RGB"), int) - np.asarray(whole.reduce(4), int)).mean() < 2


XMP = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    "segments",
    [
        pytest.param(b"", id="none"),
        pytest.param(exif("II", [(0x0106, 2)]), id="exif-without-it"),
        pytest.param(exif("MM", [(orientation.TAG, 3)])[:-8], id="cut-off"),
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\xff", id="astray"),
        pytest.param(b"Exif\0\0", id="empty"),
        pytest.param(XMP, id="xmp"),
        pytest.param(exif("II", [(orientation.TAG, 6)]), id="turned"),
    ],
)
@pytest.mark.parametrize("between", [b"", b"\xff", b"\0\0"], ids=["", "fill-byte", "stray-bytes"])
def test_the_short_way_to_the_orientation_leads_where_pillows_does(segments: bytes, between: bytes) -> None:
    plain = encoded(FIELD.resize((300, 200)), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(segments) + 2) + segments if segments else b""
    data = plain[:20] + between + segment + plain[20:]
    found = orientation.of_jpeg(data)

    assert found in {None, orientation.of_image(read_header(data, 10**9))}
    assert (reduced(data, SIDE).width, reduced(data, SIDE).height) == decode(data, 10**9).image.size


@pytest.mark.parametrize(
    ("data", "mode", "name"),
    [
        (encoded(FIELD.convert("CMYK"), "JPEG"), "CMYK", "JPEG"),
        (encoded(FIELD, "MPO", save_all=True, append_images=[FIELD]), "RGB", "JPEG"),
        (encoded(FIELD.quantize(4), "PNG"), "P", "PNG"),
        (encoded(FIELD, "GIF"), "P", "GIF"),
        (encoded(FIELD.convert("RGBA"), "WEBP"), "RGB", "WEBP"),
    ],
    ids=["cmyk", "mpo", "palette", "gif", "webp"],
)
def test_format_and_mode_are_those_of_the_original(data: bytes, mode: str, name: str) -> None:
    copy, whole = reduced(data, SIDE), decode(data, 10**9)

    assert (copy.mode, copy.format) == (mode, name) == (whole.mode, whole.format)
    np.testing.assert_allclose(np.asarray(copy.image().convert("RGB"), int), np.asarray(whole.image, int), atol=1)


@pytest.mark.parametrize("data", [b"", b"GIF89a", encoded(FIELD, "JPEG")[:-20], b"\xff\xd8\xff"], ids=len)
def test_damage_is_not_measured(data: bytes) -> None:
    with pytest.raises(Unreadable):
        reduced(data, SIDE)


@pytest.mark.skipif(not SAMPLE.exists(), reason="needs the ImageNet sample")
def test_photographs_look_the_same_from_jpeg_and_from_png() -> None:
    for path in sorted(SAMPLE.iterdir())[::50]:
        data = path.read_bytes()
        ours = reduced(data, SIDE)
        theirs = reduced(encoded(decode(data, 10**9).image, "PNG", compress_level=1), SIDE)

        assert ours.pixels.shape == theirs.pixels.shape
        assert np.abs(ours.pixels.astype(int) - theirs.pixels.astype(int)).mean() < 1
