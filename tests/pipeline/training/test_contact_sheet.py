from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline import files, settings
from pipeline.dataset import assignment, store
from pipeline.errors import DataError
from pipeline.settings import Settings
from pipeline.training import contact_sheet
from pipeline.training.contact_sheet import TILE, VIEWS

PARAMS = settings.read_params(settings.code_root() / "params.yaml")


def chosen(*overrides: str) -> Settings:
    return settings.parse(settings.with_overrides(PARAMS, [f"train.input_size={TILE}", *overrides]))


def write(root: Path, rows: list[Mapping[str, Any]], *overrides: str) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """The index, and each strip as [tiles, TILE, TILE, 3]."""
    picked = chosen(*overrides)
    contact_sheet.write(root / "sheet", rows, picked.augment, picked.train)
    index = files.read_json(root / "sheet/index.json")
    assert sorted(path.name for path in (root / "sheet").iterdir()) == [
        *(row["file"] for row in index["rows"]),
        "index.json",
    ]
    strips = [np.asarray(Image.open(root / "sheet" / row["file"])).astype(int) for row in index["rows"]]
    return index, [strip.reshape(TILE, -1, TILE, 3).transpose(1, 0, 2, 3) for strip in strips]


def picture(label: str, colour: tuple[int, int, int]) -> dict[str, Any]:
    """Brighter from left to right, of the size of a tile."""
    pixels = (np.array(colour) * np.linspace(0.3, 1, TILE)[None, :, None]).repeat(TILE, axis=0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"image_id": store.put(buffer.getvalue()), "label": label, "notes": (), "pixels": pixels.astype(int)}


def test_rows_are_of_as_many_classes_as_there_are_and_of_training_images_only() -> None:
    plan = [("a", "train", 9), ("b", "train", 2), ("c", "train", 1), ("d", "test", 3)]
    rows = [
        {"image_id": f"{label}{n}", "label": label, "class": 0, "group": "", "split": split, "fold": 0, "copies": 0}
        for label, split, count in plan
        for n in range(count)
    ]
    current = pa.table({"image_id": [row["image_id"] for row in rows], "notes": [["odd"]] + [None] * (len(rows) - 1)})

    found = contact_sheet.choose(pa.Table.from_pylist(rows, assignment.SCHEMA), current, 6)

    assert [row["image_id"] for row in found] == ["a0", "a1", "a2", "b0", "b1", "c0"]
    assert [list(row["notes"]) for row in found] == [["odd"], [], [], [], [], []]


def test_the_first_tile_is_the_image_and_the_others_are_altered(tmp_path: Path) -> None:
    rows = [picture("blue", (20, 40, 220)), picture("red", (220, 40, 20))]

    index, strips = write(tmp_path, rows)

    assert index == {
        "rows": [{"label": "blue", "file": "00.jpg"}, {"label": "red", "file": "01.jpg"}],
        "views": VIEWS,
        "tile": TILE,
    }
    for row, strip in zip(rows, strips, strict=True):
        assert strip.shape == (VIEWS, TILE, TILE, 3)
        assert np.abs(strip[0, :, 8:-8] - row["pixels"][:, 8:-8]).mean() < 1.5  # JPEG
        for view in strip[1:]:
            assert np.abs(view - row["pixels"]).mean() > 2


def test_without_augmentation_all_tiles_are_the_image(tmp_path: Path) -> None:
    row = picture("red", (220, 40, 20))

    _, (strip,) = write(tmp_path, [row], "augment.preset=none")

    assert np.abs(strip[:, :, 8:-8] - row["pixels"][:, 8:-8]).mean() < 3


def test_filters_are_applied(tmp_path: Path) -> None:
    _, (strip,) = write(tmp_path, [picture("red", (220, 40, 20))], "train.filters=[grayscale]")

    assert np.ptp(strip, axis=3).max() <= 3


def test_a_last_row_shows_what_mixing_makes(tmp_path: Path) -> None:
    rows = [picture("blue", (0, 0, 220)), picture("red", (220, 0, 0))]

    index, strips = write(tmp_path, rows, "augment.preset=none", "augment.cutmix=1.0")

    assert [row["label"] for row in index["rows"]] == ["blue", "red", ""]
    assert strips[2].shape == (VIEWS, TILE, TILE, 3)
    shares = [np.mean(tile[:, :, 0] > tile[:, :, 2]) for tile in strips[2]]  # of the red picture
    assert sum(0.03 < share < 0.97 for share in shares) >= 3
    single, _ = write(tmp_path, rows[:1], "augment.cutmix=1.0")
    assert len(single["rows"]) == 1  # an image alone has no neighbour


def test_an_image_that_is_gone_is_named_and_the_older_sheet_stays(tmp_path: Path) -> None:
    row = picture("red", (220, 40, 20))
    write(tmp_path, [row])

    with pytest.raises(DataError, match="missing"):
        write(tmp_path, [row, {"image_id": "ab" * 32, "label": "x", "notes": ()}])

    assert (tmp_path / "sheet/index.json").exists()
