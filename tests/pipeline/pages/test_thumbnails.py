from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.pages import thumbnails
from pipeline.pages.thumbnails import Album, thumbnail

LIMIT = 100_000_000


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))


def noise(path: Path, size: tuple[int, int], mode: str, **save: Any) -> Path:
    height_first = (size[1], size[0]) if mode in {"L", "I;16"} else (size[1], size[0], len(mode))
    kind: Any = np.uint16 if mode == "I;16" else np.uint8
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, height_first, dtype=kind)
    Image.fromarray(pixels, mode=None).save(path, **save)
    return path


@pytest.mark.parametrize(
    ("name", "size", "mode"),
    [
        ("a.jpg", (3000, 1500), "RGB"),
        ("b.png", (40, 30), "L"),
        ("c.png", (300, 300), "RGBA"),
        ("d.png", (99, 99), "I;16"),
    ],
)
def test_a_thumbnail_is_small_whatever_the_image(tmp_path: Path, name: str, size: tuple[int, int], mode: str) -> None:
    uri = thumbnail(noise(tmp_path / name, size, mode), LIMIT)
    assert uri is not None
    assert len(uri) <= thumbnails.MAX_BYTES + 23
    picture = decoded(uri)
    assert max(picture.size) == min(max(size), thumbnails.SIDE)
    assert picture.size[0] / picture.size[1] == pytest.approx(size[0] / size[1], rel=0.03)


def test_a_thumbnail_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    uri = thumbnail(noise(tmp_path / "a.jpg", (400, 200), "RGB", exif=exif), LIMIT)
    assert uri is not None
    assert decoded(uri).size == (56, 112)


def test_what_is_no_image_has_no_thumbnail(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no image")
    assert thumbnail(tmp_path / "text", LIMIT) is None
    assert thumbnail(tmp_path / "missing", LIMIT) is None
    assert thumbnail(noise(tmp_path / "a.jpg", (100, 100), "RGB"), 99) is None


def test_an_album_stops_at_its_budget_and_counts_a_picture_each_time_it_is_shown(tmp_path: Path) -> None:
    noise(tmp_path / "a.png", (20, 20), "L")
    size = len(str(thumbnail(tmp_path / "a.png", LIMIT)))
    album = Album(tmp_path.joinpath, max_pixels=LIMIT, budget=3 * size - 1)

    assert [album.picture(name) is None for name in ("a.png", None, "missing", "a.png", "a.png")] == [
        False,
        True,
        True,
        False,
        True,
    ]
