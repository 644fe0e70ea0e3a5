"""A small upright copy of an image for measuring, at a fraction of the cost of decoding it whole.

Each side is divided by the smallest power of two that brings the longer one to at most `side` pixels (rounded up),
and every pixel is the mean of a square of the original's. libjpeg does that while it decodes: its reduced inverse
DCTs give the averages of adjacent pixels (libjpeg-turbo, jidctred.c), in vector code and without the pixels
themselves. Other formats are decoded and averaged, so a picture looks the same here whatever its format.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.dataset import images, orientation

LIBJPEG_FACTOR = 8  # its strongest reduction: one pixel for each block of 8 x 8
_MODES = {"Gray": "L", "YCbCr": "RGB", "RGB": "RGB"}  # libjpeg's colour spaces to Pillow's modes


@dataclass(frozen=True)
class Reduced:
    pixels: npt.NDArray[np.uint8]  # upright and contiguous; [H, W] grey, or [H, W, 4] red, green, blue and nothing
    format: str  # of the original, as in `images.Decoded`
    mode: str  # of the original, as in `images.Decoded`
    width: int  # of the original, upright, in pixels
    height: int
    bytes: int  # of the original

    def image(self) -> Image.Image:
        """The same pixels, shared, in mode L or RGBX."""
        return _image(self.pixels)


def reduced(data: bytes, side: int) -> Reduced:
    """The copy of an image that ingest has accepted. Raises `images.Unreadable`."""
    return (_reduced_jpeg(data, side) if data.startswith(b"\xff\xd8\xff") else None) or _reduced_other(data, side)


def _reduced_jpeg(data: bytes, side: int) -> Reduced | None:
    """None for what takes more than libjpeg: CMYK, EXIF out of the ordinary, damage of any degree."""
    import simplejpeg  # those who only read what was measured, such as the scheduler, do without

    turn = orientation.of_jpeg(data)
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space not in _MODES or turn is None:
            return None
        factor = _factor(width, height, side)
        scale = min(factor, LIBJPEG_FACTOR)
        # Four bytes per pixel, because Pillow takes such an array as it is and would copy one of three.
        wanted = "GRAY" if space == "Gray" else "RGBX"
        pixels = simplejpeg.decode_jpeg(data, wanted, min_height=-(-height // scale), min_width=-(-width // scale))
    except ValueError:
        return None
    if space == "Gray":
        pixels = pixels[:, :, 0]
    if factor > scale or turn != 1:
        pixels = _pixels(orientation.upright(_image(pixels).reduce(factor // scale), turn))
    if turn in orientation.SIDEWAYS:
        width, height = height, width
    return Reduced(pixels, "JPEG", _MODES[space], width, height, len(data))


def _reduced_other(data: bytes, side: int) -> Reduced:
    decoded = images.decode(data, sys.maxsize)  # the size was judged at ingest
    image = decoded.image
    copy = image.reduce(_factor(*image.size, side))
    return Reduced(_pixels(copy), decoded.format, decoded.mode, *image.size, len(data))


def _image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    mode = "L" if pixels.ndim == 2 else "RGBX"
    return Image.frombuffer(mode, (pixels.shape[1], pixels.shape[0]), pixels, "raw", mode, 0, 1)


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(image if image.mode == "L" else image.convert("RGBX"))


def _factor(width: int, height: int, side: int) -> int:
    factor = 1
    while max(width, height) > side * factor:
        factor *= 2
    return factor
