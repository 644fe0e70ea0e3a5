"""Images as small pictures inside a page: `data:` URIs, of bounded size whatever the image."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageOps

from pipeline.dataset import images

SIDE = 112  # pixels of the longer side
MAX_BYTES = 8192  # of a picture, encoded
QUALITIES = (80, 60, 40, 20)


class Album:
    """The pictures of one page, which together take at most `budget` bytes. `path`: image id to its file."""

    def __init__(self, path: Callable[[str], Path], *, max_pixels: int, budget: int) -> None:
        self._path = path
        self._max_pixels = max_pixels
        self._left = budget
        self._drawn: dict[str, str | None] = {}

    def picture(self, image_id: str | None) -> str | None:
        """None if there is no such image, it cannot be drawn, or the page is full."""
        if image_id is None:
            return None
        if image_id not in self._drawn:
            self._drawn[image_id] = thumbnail(self._path(image_id), self._max_pixels)
        found = self._drawn[image_id]
        if found is None or len(found) > self._left:
            return None
        self._left -= len(found)
        return found


def thumbnail(path: Path, max_pixels: int) -> str | None:
    """A `data:` URI of at most `MAX_BYTES` and `SIDE` pixels; None if the file is missing or no image."""
    try:
        small = _small(path.read_bytes(), max_pixels)
    except (OSError, ValueError, SyntaxError, images.Unreadable, Image.DecompressionBombError):
        return None
    small.thumbnail((SIDE, SIDE))
    for quality in QUALITIES:
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality, optimize=True)
        encoded = base64.b64encode(buffer.getvalue()).decode()
        if len(encoded) <= MAX_BYTES:
            return f"data:image/jpeg;base64,{encoded}"
    return None


def _small(data: bytes, max_pixels: int) -> Image.Image:
    """JPEG is decoded straight to a smaller size: photographs of 9 megapixels take 10 ms that way instead of 90."""
    with Image.open(io.BytesIO(data)) as opened:
        if opened.format == "JPEG" and opened.width * opened.height <= max_pixels:
            opened.draft("RGB", (2 * SIDE, 2 * SIDE))
            return ImageOps.exif_transpose(opened).convert("RGB")
    return images.decode(data, max_pixels).image
