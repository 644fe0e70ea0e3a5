from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.dataset.images import Unreadable, decode
from pipeline.dataset.inspection import MAX_SCANS, inspect

SAMPLE = Path(__file__).parents[4] / "shared/data/imagenet_sample"


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def notes(data: bytes, name: str = "picture") -> tuple[str, ...]:
    return inspect(data, name, max_pixels=100_000, min_side=4)


def reason(data: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        notes(data)
    assert caught.value.detail
    return caught.value.reason


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)).resize((120, 90))
FRAMES = {"save_all": True, "append_images": [PHOTO.rotate(180), PHOTO.rotate(90)]}
JPEG = encoded(PHOTO, "JPEG")
PNG = encoded(PHOTO, "PNG")
TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(JPEG, (), id="jpeg"),
        pytest.param(encoded(PHOTO, "JPEG", progressive=True), (), id="progressive"),
        pytest.param(encoded(PHOTO.convert("L"), "JPEG"), (), id="grey-jpeg"),
        pytest.param(encoded(PHOTO.convert("CMYK"), "JPEG"), ("cmyk",), id="cmyk"),
        pytest.param(encoded(PHOTO, "JPEG", exif=TURNED), ("exif-rotated",), id="turned-jpeg"),
        pytest.param(encoded(PHOTO, "JPEG", exif=b"Exif\0\0II*\0astray"), (), id="broken-exif"),
        pytest.param(encoded(PHOTO, "MPO", **FRAMES), (), id="mpo"),
        pytest.param(PNG, (), id="png"),
        pytest.param(encoded(PHOTO, "PNG", exif=TURNED), ("exif-rotated",), id="turned-png"),
        pytest.param(encoded(PHOTO, "TIFF", exif=TURNED), ("exif-rotated",), id="turned-tiff"),
        pytest.param(encoded(PHOTO, "WEBP", exif=TURNED), ("exif-rotated",), id="turned-webp"),
        pytest.param(encoded(PHOTO.convert("RGBA"), "PNG"), ("alpha",), id="alpha"),
        pytest.param(encoded(PHOTO.convert("LA"), "PNG"), ("alpha",), id="grey-alpha"),
        pytest.param(encoded(PHOTO.quantize(16), "PNG"), ("palette",), id="palette"),
        pytest.param(encoded(PHOTO.quantize(16), "PNG", transparency=0), ("palette", "alpha"), id="palette-alpha"),
        pytest.param(encoded(PHOTO.convert("I;16"), "PNG"), ("16-bit",), id="16-bit-png"),
        pytest.param(encoded(PHOTO.convert("I;16"), "TIFF"), ("16-bit",), id="16-bit-tiff"),
        pytest.param(encoded(PHOTO.convert("F"), "TIFF"), ("16-bit",), id="float-tiff"),
        pytest.param(encoded(PHOTO, "GIF"), ("palette",), id="gif"),
        pytest.param(encoded(PHOTO, "GIF", **FRAMES), ("palette", "animated"), id="animated-gif"),
        pytest.param(encoded(PHOTO, "WEBP", **FRAMES), ("animated",), id="animated-webp"),
        pytest.param(encoded(PHOTO, "PNG", **FRAMES), ("animated",), id="animated-png"),
        pytest.param(encoded(PHOTO.convert("1"), "PNG"), (), id="bilevel"),
        pytest.param(encoded(PHOTO, "BMP"), (), id="bmp"),
        pytest.param(encoded(PHOTO, "PPM"), (), id="ppm"),
    ],
)
def test_what_is_unusual_is_noted(data: bytes, expected: tuple[str, ...]) -> None:
    assert notes(data) == expected
    decode(data, 100_000)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("s3://bucket/a b/ü.JPG", False),
        ("a.jpeg", False),
        ("a.png", True),
        ("a.heic", True),
        ("a.txt", True),
        ("a", False),
        ("d41d8cd98f00", False),
        ("frame.0017", False),
        ("photos.png/a", False),
    ],
)
def test_a_jpeg_under_another_formats_extension(name: str, wrong: bool) -> None:
    assert notes(JPEG, name) == (("wrong-extension",) if wrong else ())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git-lfs-pointer", id="git-lfs"),
        pytest.param(b"<!DOCTYPE html>\n<html><title>404</title>", "html-page", id="html"),
        pytest.param(b"\xef\xbb\xbf \n<HTML><body>Sign in", "html-page", id="html-with-byte-order-mark"),
        pytest.param(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "html-page", id="s3-error"),
        pytest.param(b'<?xml version="1.0"?><svg width="9" height="9"/>', "not-an-image", id="svg"),
        pytest.param(b'{"error": "not found"}', "not-an-image", id="json"),
        pytest.param(b"\0" * 5000, "not-an-image", id="zeros"),
        pytest.param(encoded(PHOTO.resize((400, 300)), "PNG"), "too-many-pixels", id="too-many-pixels"),
        pytest.param(encoded(PHOTO.resize((90, 3)), "PNG"), "too-small", id="too-small"),
        pytest.param(encoded(PHOTO.resize((1, 1)), "GIF"), "too-small", id="tracking-pixel"),
        pytest.param(JPEG[:40], "damaged", id="jpeg-header"),
        pytest.param(JPEG[:-2], "damaged", id="jpeg-without-its-end"),
        pytest.param(JPEG[: len(JPEG) // 2] + b"\xff\xd9", "damaged", id="jpeg-ends-early"),
        pytest.param(PNG.replace(b"IDAT", b"IDAT\0", 1), "damaged", id="png-checksum"),
    ],
)
def test_what_cannot_be_used_says_why(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_an_error_page_is_quoted() -> None:
    with pytest.raises(Unreadable, match="AccessDenied Request has expired"):
        notes(b"<?xml?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_cut_off_by_one_row_of_blocks_is_damaged(mode: str, progressive: bool) -> None:
    data = encoded(PHOTO.convert(mode), "JPEG", progressive=progressive)
    shorter = encoded(PHOTO.convert(mode).crop((0, 0, 120, 82)), "JPEG", progressive=progressive)

    assert reason(data[: len(shorter) - 2]) == "damaged"
    assert reason(data[: len(data) * 9 // 10] + b"\xff\xd9") == "damaged"  # ends as a whole file does


@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_other_formats_cut_off_by_a_scanline_are_damaged(name: str) -> None:
    data = encoded(PHOTO.convert("L").convert("RGB"), name)
    assert reason(data[: -len(data) // 60]) == "damaged"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(JPEG + b"garbage" * 50, (), id="garbage-behind-the-end"),
        pytest.param(JPEG[:20] + b"\0\1\2" + JPEG[20:], ("jpeg-warning",), id="bytes-between-segments"),
        pytest.param(JPEG[:-2] + bytes(3) + JPEG[-2:], (), id="zeros-before-the-end"),
        pytest.param(JPEG[:2] + b"\xff" + JPEG[2:], (), id="fill-bytes"),
        pytest.param(JPEG.replace(b"JFIF\0\1\1", b"JFIF\0\7\1"), ("jpeg-warning",), id="unknown-jfif-revision"),
        pytest.param(PNG[:-12], (), id="png-without-its-last-chunk"),
    ],
)
def test_what_is_odd_but_whole_is_accepted(data: bytes, expected: tuple[str, ...]) -> None:
    assert notes(data) == expected
    np.testing.assert_array_equal(
        np.asarray(decode(data, 100_000).image), np.asarray(decode(PNG if data[:1] == b"\x89" else JPEG, 100_000).image)
    )


def test_a_gif_whose_second_frame_is_damaged_keeps_its_first() -> None:
    data = encoded(PHOTO, "GIF", **FRAMES)
    assert notes(data[: len(data) // 2]) == ("palette", "animated")


def png_with(*chunks: bytes, width: int = 20, height: int = 20, rows: int = 20) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(21 * rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("marker", ["end", "restart", "next scan"])
def test_scan_data_from_which_the_decoder_recovers_too_early_are_damaged(marker: str) -> None:
    options = {"end": {}, "restart": {"restart_marker_blocks": 40}, "next scan": {"progressive": True}}[marker]
    data = encoded(PHOTO.resize((240, 180)), "JPEG", **options)
    generator = np.random.default_rng(0)
    recoveries = 0
    for _ in range(60):
        place = int(generator.integers(data.index(b"\xff\xda") + 20, len(data) - 40))
        broken = data[:place] + generator.integers(0, 255, 30, np.uint8).tobytes() + data[place + 30 :]
        if "extraneous" in warning(broken):
            recoveries += 1
            assert reason(broken) == "damaged"
    assert recoveries >= 5


@pytest.mark.parametrize("padding", [bytes(40), b"\0\xff\0\0" * 10], ids=["zeros", "zeros-and-ones"])
@pytest.mark.parametrize("behind", [b"", b"garbage" * 50, JPEG], ids=["end", "garbage", "another-jpeg"])
def test_a_jpeg_padded_before_its_end_is_accepted(padding: bytes, behind: bytes) -> None:
    data = JPEG[:-2] + padding + JPEG[-2:] + behind
    assert "extraneous" in warning(data)
    assert notes(data) == ("jpeg-warning",)


def warning(data: bytes) -> str:
    try:
        simplejpeg.decode_jpeg(data)
    except ValueError as error:
        return str(error)
    return ""


def zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(megabytes)) + packer.flush()


FRAME = b",\0\0\0\0\5\0\5\0\0\2\2\x4c\1\0"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to reset the peak of memory")
@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(lambda: png_with(chunk(b"zTXt", b"a\0\0" + zeros(150))), None, id="png-text"),
        pytest.param(lambda: png_with(chunk(b"iCCP", b"a\0\0" + zeros(150))), None, id="png-profile"),
        pytest.param(lambda: png_with(*[chunk(b"zTXt", b"a\0\0" + zeros(1))] * 150), None, id="png-texts"),
        pytest.param(lambda: png_with(chunk(b"IDAT", zeros(150))), None, id="png-more-pixels-than-declared"),
        pytest.param(lambda: png_with(width=2**31 - 1, height=2**31 - 1, rows=1), "too-many-pixels", id="png-size"),
        pytest.param(lambda: b"GIF89a\xff\xff\xff\xff\0\0\0" + FRAME + b";", "too-many-pixels", id="gif-canvas"),
        pytest.param(lambda: encoded(PHOTO, "GIF")[:-1] + FRAME * 200_000 + b";", None, id="gif-frames"),
        pytest.param(lambda: b"P6 100000 100000 255\n", "too-many-pixels", id="ppm-size"),
        pytest.param(
            lambda: encoded(PHOTO, "JPEG", progressive=True)[:-2] + b"\xff\xda" * MAX_SCANS + b"\xff\xd9",
            "damaged",
            id="jpeg-scans",
        ),
        pytest.param(
            lambda: encoded(PHOTO, "BMP")[:18] + struct.pack("<ii", 60_000, 60_000) + encoded(PHOTO, "BMP")[26:],
            "too-many-pixels",
            id="bmp-size",
        ),
    ],
)
def test_bombs_are_met_with_little_memory(make: Callable[[], bytes], expected: str | None) -> None:
    data = make()
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_kilobytes()

    if expected is None:
        notes(data)
    else:
        assert reason(data) == expected

    assert peak_kilobytes() - before < 50_000  # the bombs hold three times as much


def peak_kilobytes() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


WHOLE = {name: encoded(PHOTO, name) for name in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")}


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4))
def test_tampered_bytes_are_refused_or_can_be_decoded(name: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(WHOLE[name])
    for place, change in changes:
        data[int(place * len(data))] ^= change
    try:
        notes(bytes(data))
    except Unreadable:
        return
    decode(bytes(data), 100_000)


@pytest.mark.skipif(not SAMPLE.exists(), reason="needs the ImageNet sample")
def test_photographs_are_accepted_and_their_truncations_are_not() -> None:
    for path in sorted(SAMPLE.iterdir())[::25]:
        data = path.read_bytes()
        assert set(inspect(data, path.name, max_pixels=10**8, min_side=4)) <= {"wrong-extension", "cmyk"}
        with pytest.raises(Unreadable, match="damaged"):
            inspect(data[: int(len(data) * 0.995)], path.name, max_pixels=10**8, min_side=4)
