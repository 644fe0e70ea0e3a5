"""The bytes of an image as they go into a shard: JPEG or PNG that every decoder reads alike, upright, 8 bit.

Most files are that already and go in as they are, on the word of their headers: to decode each would cost ten times
as much as to write it. Ingest has decoded every pixel and noted what libjpeg warned of.
"""

from __future__ import annotations

import struct
import sys
import zlib
from dataclasses import dataclass, replace

import numpy as np
import simplejpeg
from PIL import Image

from pipeline.dataset import images, orientation
from pipeline.dataset.inspection import JPEG_WARNING

_PLAIN = frozenset({"Gray", "YCbCr"})  # libjpeg's names of the colour spaces that all decoders take alike
_PNG = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS = 8
_PNG_GREY, _PNG_RGB = 0, 2
# Behind these chunks lies what decoders treat differently: transparency, turning, pictures of an animation.
_PNG_SPECIAL = frozenset({b"tRNS", b"eXIf", b"iTXt", b"acTL"})


@dataclass(frozen=True)
class Encoded:
    """`format`: jpeg or png. `height` and `width` in pixels."""

    data: bytes
    format: str
    height: int
    width: int


def encode(data: bytes, notes: tuple[str, ...], *, max_side: int | None, quality: int) -> Encoded:
    """An image that ingest has accepted, with its notes (docs/formats.md).

    Args:
        max_side: pixels; an image whose longer side exceeds it is scaled down to it and becomes a JPEG.
        quality: of such a JPEG, 1-100.

    Raises `images.Unreadable` if the image cannot be decoded, where it must be.
    """
    plain = None if JPEG_WARNING in notes else _plain(data)
    if plain is not None and (max_side is None or max(plain.height, plain.width) <= max_side):
        return plain
    if plain is not None and plain.format == "jpeg" and max_side is not None:
        height, width = _fitted(plain.height, plain.width, max_side)
        if (reduced := _reduced(data, height, width)) is not None:
            return to_jpeg(_resized(reduced, height, width), quality)
    decoded = images.decode(data, sys.maxsize)  # its size was judged at ingest
    if max_side is not None and max(decoded.image.size) > max_side:
        return to_jpeg(_resized(decoded.image, *_fitted(decoded.image.height, decoded.image.width, max_side)), quality)
    # What is not plain although it looks so to Pillow is one of those that decoders read differently.
    content, name = images.encode(replace(decoded, as_stored=False), data)
    return Encoded(content, name, decoded.image.height, decoded.image.width)


def size(stored: int, height: int, width: int, max_side: int | None) -> int:
    """About how many bytes `encode` makes of an image of `stored` bytes and these pixels."""
    if max_side is None or max(height, width) <= max_side:
        return stored
    return max(1, int(stored * (max_side / max(height, width)) ** 2))


def to_jpeg(image: Image.Image, quality: int) -> Encoded:
    """An image of mode RGB or L. Chroma is stored at half resolution, as cameras do."""
    pixels = np.asarray(image)
    if image.mode == "L":
        data = simplejpeg.encode_jpeg(pixels[:, :, None], quality, "GRAY", "Gray")
    else:
        data = simplejpeg.encode_jpeg(pixels, quality, "RGB", "420")
    return Encoded(data, "jpeg", image.height, image.width)


def _reduced(data: bytes, height: int, width: int) -> Image.Image | None:
    """A JPEG as small as libjpeg can make it while it decodes, but no smaller than this; None if libjpeg objects."""
    grey = simplejpeg.decode_jpeg_header(data)[2] == "Gray"
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if grey else "RGB", min_height=height, min_width=width)
    except ValueError:
        return None
    return Image.fromarray(pixels[:, :, 0] if grey else pixels)


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BILINEAR)  # Pillow's is antialiased


def _fitted(height: int, width: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _plain(data: bytes) -> Encoded | None:
    """The bytes as they are, if their header says that all decoders see one and the same upright picture in them."""
    return _plain_png(data) if data.startswith(_PNG) else _plain_jpeg(data)


def _plain_jpeg(data: bytes) -> Encoded | None:
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if space not in _PLAIN or orientation.of_jpeg(data) != 1:
        return None
    return Encoded(data, "jpeg", height, width)


def _plain_png(data: bytes) -> Encoded | None:
    """All chunks must be whole, up to the last: of a file that was cut off Pillow reads what libpng refuses."""
    position, names = len(_PNG), []
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data) or zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return None
        names.append(name)
        position = end
        if name == b"IEND":
            break
    if not names or names[0] != b"IHDR" or names[-1] != b"IEND" or _PNG_SPECIAL.intersection(names):
        return None
    width, height, depth, colours = struct.unpack_from(">IIBB", data, len(_PNG) + 8)
    if depth != _EIGHT_BITS or colours not in (_PNG_GREY, _PNG_RGB):
        return None
    return Encoded(data, "png", height, width)
