"""Bytes to pixels, or the reason why not.

Decoded images are upright (EXIF orientation applied, as every viewer does), 8 bit, and `RGB` or `L`; a still
image only. Everything downstream, serving included, sees images through `decode`.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
JPEG_QUALITY = 95  # of images that must be encoded anew; above it files grow faster than they improve


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
    if not data:
        raise Unreadable("empty", "the file has no bytes")
    try:
        with warnings.catch_warnings():
            # Pillow warns of bombs at its own limit; ours is the one that counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise Unreadable("not-an-image", f"starts with {data[:16]!r}") from None
    except Image.DecompressionBombError as error:
        raise Unreadable("too-many-pixels", str(error)) from None
    except Exception as error:  # Pillow's readers raise nearly anything on bytes that were tampered with
        raise Unreadable("damaged", str(error)) from None
    width, height = opened.size
    if width * height > max_pixels:
        raise Unreadable("too-many-pixels", f"{width} x {height} pixels, more than {max_pixels}")
    try:
        opened.load()
        upright = ImageOps.exif_transpose(opened)
        image = _eight_bit(upright)
    except Exception as error:
        raise Unreadable("damaged", str(error)) from None
    as_stored = (
        opened.format in {"JPEG", "PNG"}
        and opened.mode in {"RGB", "L"}
        and "transparency" not in opened.info
        and opened.getexif().get(0x0112, 1) == 1
    )
    return Decoded(image, str(opened.format), opened.mode, as_stored)


def _eight_bit(image: Image.Image) -> Image.Image:
    """To RGB or L: 16-bit grey is scaled to 8 bit, transparent pixels are laid on white."""
    if image.mode in {"RGB", "L"} and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips at 255 instead of scaling, which turns most 16-bit images white.
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode in {"1", "F"}:
        return image.convert("L")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("L" if image.mode == "LA" else "RGB")


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
