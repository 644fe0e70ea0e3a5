from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import settings
from pipeline.dataset import augment, copies
from pipeline.dataset.encoding import Encoded
from pipeline.dataset.presets import Policy
from pipeline.dataset.shards import Row
from pipeline.settings import Augment

SHIPPED = settings.load(Path(__file__).parents[3] / "params.yaml").augment
ROW = Row("ab" * 32, 0, "cat", "g", "train", (), 900, copy=1)


def chosen(**values: Any) -> Augment:
    return SHIPPED.model_copy(update=values)


def smooth(mode: str = "RGB", height: int = 30, width: int = 50) -> Image.Image:
    """Little is lost of it in a JPEG."""
    x, y = np.meshgrid(np.linspace(30, 220, width), np.linspace(0, 60, height))
    return Image.fromarray(np.stack([x, 250 - x, x / 2 + y], axis=2).astype(np.uint8)).convert(mode)


def stored(image: Image.Image) -> Encoded:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Encoded(buffer.getvalue(), "png", image.height, image.width)


def opened(made: Encoded) -> Image.Image:
    return Image.open(io.BytesIO(made.data))


def test_a_copy_follows_from_the_image_its_number_and_the_seed() -> None:
    image = stored(smooth())
    one = copies.maker(SHIPPED, 90)(image, ROW)

    assert copies.maker(SHIPPED, 90)(image, ROW) == one
    others = [
        copies.maker(SHIPPED, 90)(image, replace(ROW, copy=2)),
        copies.maker(SHIPPED, 90)(image, replace(ROW, image_id="cd" * 32)),
        copies.maker(chosen(seed=18), 90)(image, ROW),
    ]
    assert len({one.data, *(other.data for other in others)}) == 4


def test_a_copy_is_a_jpeg_of_the_images_size_and_mode() -> None:
    for mode in ("RGB", "L"):
        made = copies.maker(SHIPPED, 90)(stored(smooth(mode)), ROW)

        picture = opened(made)
        assert (made.format, made.height, made.width) == ("jpeg", 30, 50)
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (50, 30), mode)


def test_without_any_change_a_copy_is_the_image() -> None:
    made = copies.maker(chosen(preset="none"), 100)(stored(smooth()), ROW)

    difference = np.asarray(opened(made)).astype(int) - np.asarray(smooth())
    assert np.abs(difference).max() <= 8  # chroma is stored at half resolution


def test_a_cropped_copy_is_a_part_of_the_image() -> None:
    image = smooth()
    make = copies.maker(chosen(preset="none", crop=0.3), 100)
    parts = [make(stored(image), replace(ROW, copy=number)) for number in range(1, 9)]

    areas = [made.height * made.width / (30 * 50) for made in parts]
    assert min(areas) > 0.27  # sides are whole pixels
    assert max(areas) < 1
    assert np.ptp(areas) > 0.3
    pixels = np.asarray(image).astype(int)
    for made in parts:
        part = np.asarray(opened(made)).astype(int)
        best = min(
            np.abs(pixels[top : top + made.height, left : left + made.width] - part).mean()
            for top in range(31 - made.height)
            for left in range(51 - made.width)
        )
        assert best < 1.5


def test_a_tiny_image_can_be_cropped() -> None:
    made = copies.maker(chosen(preset="none", crop=0.05), 90)(stored(smooth(height=1, width=3)), ROW)

    assert made.height == 1


@pytest.mark.parametrize("label", ["cat", "b"])
def test_images_that_may_not_be_mirrored_are_not(label: str) -> None:
    """Red rises from left to right unless the copy is mirrored."""
    make = copies.maker(chosen(preset="none", horizontal_flip=True, never_mirror=("b",)), 90)
    rising = []
    for number in range(1, 21):
        red = np.asarray(opened(make(stored(smooth()), replace(ROW, text=label, copy=number))))[:, :, 0].astype(int)
        rising.append(red[:, -1].mean() > red[:, 0].mean())

    assert all(rising) if label == "b" else 3 < sum(rising) < 17


def test_copies_are_not_what_training_makes_of_the_image_anyway() -> None:
    image = smooth()
    made = copies.maker(chosen(preset="none", brightness=0.3), 100)(stored(image), ROW)
    shift = np.mean(np.asarray(opened(made)).astype(int) - np.asarray(image))

    views = []
    for view in range(1, 4):
        pixels = np.asarray(image)[None]
        altered = augment.altered(
            pixels, [ROW.image_id], [view], [True], policy=Policy(brightness=0.3), seed=SHIPPED.seed
        )
        views.append(np.mean(np.asarray(altered)[0].astype(int) - pixels[0]))
    assert min(abs(view - shift) for view in views) > 3


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"seed": 3}, True),
        ({"rotation": 0.2}, True),
        ({"fill": "wrap"}, True),
        ({"never_mirror": ("b",)}, True),
        ({"preset": "light"}, True),
        ({"mixup": 0.4, "cutmix": 1.0}, False),
        ({"magnitude": 0.9}, False),
        ({"balance": 0.5, "max_copies": 7}, False),
        ({"zoom": 0.1}, False),
    ],
    ids=str,
)
def test_the_recipe_differs_with_what_copies_show(change: Mapping[str, Any], differs: bool) -> None:
    assert (copies.recipe(chosen(**change), 90) != copies.recipe(SHIPPED, 90)) is differs
    image = stored(smooth())
    rows = [replace(ROW, text="b", copy=number) for number in range(1, 6)]
    makers = [copies.maker(SHIPPED, 90), copies.maker(chosen(**change), 90)]
    one, other = ([make(image, row).data for row in rows] for make in makers)
    assert (one != other) is differs


def test_the_recipe_differs_with_the_quality_and_not_with_the_order_of_labels() -> None:
    assert copies.recipe(SHIPPED, 90) != copies.recipe(SHIPPED, 80)
    assert copies.recipe(chosen(never_mirror=("b", "d")), 90) == copies.recipe(chosen(never_mirror=("d", "b")), 90)
    still = chosen(preset="none", never_mirror=("b",), fill="wrap")
    assert copies.recipe(still, 90) == copies.recipe(chosen(preset="none"), 90)
