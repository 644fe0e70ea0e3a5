"""A few test images that the model got wrong, the most confident first, as small pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from pipeline.dataset import images

SHOWN = 24
PER_PAIR = 3  # of one pair of classes, so that one confusion does not fill the page
SIDE = 112  # pixels of the longer side
MAX_BYTES = 8192  # of a picture, encoded
QUALITIES = (80, 60, 40, 20)


@dataclass(frozen=True)
class Mistake:
    uri: str
    label: str
    predicted: str
    confidence: float  # 0-1
    live_predicted: str | None
    picture: str  # data: URI


def choose(predictions: Sequence[Mapping[str, Any]], path: Callable[[str], Path], max_pixels: int) -> list[Mistake]:
    """At most `SHOWN`. Images that are gone or cannot be drawn are skipped. `path`: image id to its file."""
    wrong = sorted(
        (row for row in predictions if row["label"] != row["predicted"]),
        key=lambda row: (-row["confidence"], row["image_id"]),
    )
    of_pair: Counter[tuple[str, str]] = Counter()
    chosen: list[Mistake] = []
    for row in wrong:
        pair = (row["label"], row["predicted"])
        if len(chosen) == SHOWN or of_pair[pair] == PER_PAIR:
            continue
        picture = thumbnail(path(row["image_id"]), max_pixels)
        if picture is not None:
            of_pair[pair] += 1
            chosen.append(Mistake(row["uri"], *pair, row["confidence"], row["live_predicted"], picture))
    return chosen


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
