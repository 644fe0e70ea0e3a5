"""Bytes to pixels, or the reason why not.

Decoded images are upright (EXIF orientation applied, as every viewer does), 8 bit, and `RGB` or `L`; a still
image only. Everything downstream, serving included, sees images through `decode`.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from pipeline.dataset import orientation

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
JPEG_QUALITY = 95  # of images that must be encoded anew; above it files grow faster than they improve
# How files of these formats start, cut off or not.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")
_PNG = b"\x89PNG\r\n\x1a\n"
_STRIP = 1 << 20  # pixels converted at a time: in one piece, 16 bits took 8 times the memory of the decoded image
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _SIGNED = 258, 339, 2  # TIFF 6.0


class Unreadable(Exception):
    """Why bytes are no image: `reason` is a short code, `detail` says it in words."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Decoded:
    image: Image.Image  # upright, mode RGB or L
    format: str  # Pillow's name of the original encoding, e.g. JPEG
    mode: str  # Pillow's mode of the original, e.g. CMYK
    as_stored: bool  # the original bytes already show exactly `image`


def decode(data: bytes, max_pixels: int) -> Decoded:
    """Decode every pixel.

    Raises `Unreadable` with the reason `empty`, `not-an-image`, `too-many-pixels` or `damaged`.
    """
    return load(read_header(data, max_pixels))


def read_header(data: bytes, max_pixels: int) -> Image.Image:
    """The image as Pillow opens it: size and mode are known, no pixel is decoded yet. Raises as `decode` does."""
    if not data:
        raise Unreadable("empty", "the file has no bytes")
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would refuse what a larger `max_pixels` allows
    with _damage():
        try:
            opened = Image.open(io.BytesIO(_without_bulky_text(data)), formats=FORMATS)
        except UnidentifiedImageError:
            if data.startswith(_SIGNATURES):
                raise Unreadable("damaged", "cut off before the first pixel") from None
            raise Unreadable("not-an-image", f"starts with {data[:16]!r}") from None
    width, height = opened.size
    if width * height > max_pixels:
        raise Unreadable("too-many-pixels", f"{width} x {height} pixels, more than {max_pixels}")
    return opened


def check(opened: Image.Image) -> None:
    """Load what `read_header` gave, so that `load` cannot fail, without its cost: one pixel alone is converted."""
    with _damage():
        opened.load()
        _eight_bit(opened, (1, 1))


def load(opened: Image.Image) -> Decoded:
    """Decode what `read_header` gave. Raises `Unreadable` with the reason `damaged`."""
    with _damage():
        deep = is_deep(opened)
        opened.load()  # turns a TIFF upright by itself, and reads the EXIF of a PNG
        turn = orientation.of_image(opened)
        image = orientation.upright(_eight_bit(opened, opened.size), turn)
    name = encoding(opened)
    plain = opened.mode in {"RGB", "L"} and not opened.has_transparency_data and not deep
    return Decoded(image, name, opened.mode, as_stored=name in {"JPEG", "PNG"} and plain and turn == 1)


def encoding(opened: Image.Image) -> str:
    """Pillow's name of the format. Of MPO, what phones write, the first picture counts, which is a plain JPEG."""
    return "JPEG" if opened.format == "MPO" else str(opened.format)


def is_deep(opened: Image.Image) -> bool:
    """Whether an image that is not loaded yet has more than 8 bits per channel."""
    # Pillow opens some as 8 bit; then its name of their layout, such as "RGB;16B", still tells.
    return opened.mode[0] in "IF" or any(";16" in str(tile.args) for tile in getattr(opened, "tile", ()))


@contextmanager
def _damage() -> Iterator[None]:
    """Whatever goes wrong inside is the fault of the bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on metadata that Pillow cannot read, and we do not need
            yield
    except Unreadable:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on bytes that were tampered with
        raise Unreadable("damaged", str(error) or type(error).__name__) from None


def _without_bulky_text(data: bytes) -> bytes:
    """A PNG without the texts and the colour profile for which Pillow would refuse it; other bytes as they are.

    Pillow decompresses 1 MiB of each and keeps 64 MiB of all. The pixels, which are all we use, do not depend on them.
    """
    if not data.startswith(_PNG):
        return data
    kept, start, position, room = [], 0, len(_PNG), PngImagePlugin.MAX_TEXT_MEMORY
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if name in {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}:
            size = _text_bytes(name, data[position + 8 : end - 4])
            if size > room:
                kept.append(data[start:position])
                start = end
            else:
                room -= size
        position = end
    return b"".join([*kept, data[start:]]) if kept else data


def _text_bytes(name: bytes, content: bytes) -> int:
    """Of a PNG's chunk, unpacked; `sys.maxsize` beyond what Pillow unpacks. The layouts: PNG 3, 11.3.3."""
    _, _, packed = content.partition(b"\0")  # behind the keyword
    if name == b"tEXt" or (name == b"iTXt" and packed[:1] == b"\0"):
        return len(content)
    packed = packed[2:].split(b"\0", 2)[-1] if name == b"iTXt" else packed[1:]  # language, translated keyword
    unpacker = zlib.decompressobj()
    try:
        size = len(unpacker.decompress(packed, PngImagePlugin.MAX_TEXT_CHUNK))
    except zlib.error:
        return 0  # Pillow ignores it
    return sys.maxsize if unpacker.unconsumed_tail else size


def _eight_bit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The upper left `size` in RGB or L: deeper grey is scaled to 8 bit, transparent pixels are laid on white."""
    if image.mode in {"RGB", "L"} and "transparency" not in image.info:
        return image
    width, height = size
    rows = max(1, _STRIP // width)
    boxes = [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]
    white = _white(image, boxes) if image.mode[0] in "IF" else 0.0
    converted = Image.new(_strip(image.crop((0, 0, 1, 1)), white).mode, size)
    for box in boxes:
        converted.paste(_strip(image.crop(box), white), box)
    return converted


def _strip(image: Image.Image, white: float) -> Image.Image:
    if image.mode[0] in "IF":
        # Pillow's own conversion clips at 255 instead of scaling, which turns most such images white.
        return Image.fromarray(np.rint(_values(image) * (255 / white)).clip(0, 255).astype(np.uint8))
    if image.mode == "1":
        return image.convert("L")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("L" if image.mode == "LA" else "RGB")


def _values(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image, np.float32))


def _white(image: Image.Image, boxes: list[tuple[int, int, int, int]]) -> float:
    """The value of white in an image of integers (mode I) or floats (mode F), looked for in `boxes`."""
    if image.mode == "F":  # both conventions are in use, and no tag tells them apart
        return 1.0 if all(_values(image.crop(box)).max() <= 1 for box in boxes) else 255.0
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0] - (tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED)
    return 2.0 ** min(bits, 16) - 1  # microscopes write 16 bits of data into 32-bit files


def encode(decoded: Decoded, original: bytes) -> tuple[bytes, str]:
    """Bytes that TensorFlow decodes to `decoded.image`, and their format, `jpeg` or `png`.

    The original bytes where they already do; else PNG, or JPEG if the original was a JPEG.
    """
    if decoded.as_stored:
        return original, decoded.format.lower()
    name = "jpeg" if decoded.format == "JPEG" else "png"
    buffer = io.BytesIO()
    if name == "jpeg":
        decoded.image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    else:
        decoded.image.save(buffer, "PNG")
    return buffer.getvalue(), name
