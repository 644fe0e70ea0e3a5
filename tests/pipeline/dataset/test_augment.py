from __future__ import annotations

import numpy as np
import pytest

from pipeline.dataset import augment
from pipeline.dataset.augment import Draws
from pipeline.settings import Augment

NOTHING = Augment(
    horizontal_flip=False, vertical_flip=False, rotation=0, translation=0, zoom=0, brightness=0, contrast=0
)
EVERYTHING = Augment(
    horizontal_flip=True, vertical_flip=True, rotation=0.1, translation=0.1, zoom=0.2, brightness=0.1, contrast=0.3
)
IDS = tuple(f"image-{i}" for i in range(200))
IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0)


def pictures(count: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3), np.uint8)


def draws(transform: tuple[float, ...] = IDENTITY, gain: float = 1, shift: float = 0) -> Draws:
    return Draws(np.array([transform], np.float32), np.array([gain], np.float32), np.array([shift], np.float32))


def test_view_zero_is_the_image_itself() -> None:
    images = pictures(2)

    assert augment.view(images, IDS[:2], number=0, seed=1, settings=EVERYTHING) is images


def test_settings_of_zero_change_nothing() -> None:
    images = pictures(3)

    np.testing.assert_array_equal(
        augment.view(images, IDS[:3], number=1, seed=1, settings=NOTHING), images, strict=True
    )


@pytest.mark.parametrize(
    ("flag", "axis"), [("horizontal_flip", 2), ("vertical_flip", 1)], ids=["left-right", "up-down"]
)
def test_half_of_the_images_are_mirrored_exactly(flag: str, axis: int) -> None:
    images = pictures(200, side=6)

    view = augment.view(images, IDS, number=1, seed=1, settings=NOTHING.model_copy(update={flag: True}))

    mirrored = np.array([np.array_equal(new, np.flip(old, axis - 1)) for new, old in zip(view, images, strict=True)])
    kept = np.array([np.array_equal(new, old) for new, old in zip(view, images, strict=True)])
    assert (mirrored ^ kept).all()
    assert 70 < mirrored.sum() < 130


def test_a_view_depends_on_the_image_the_view_and_the_seed_only() -> None:
    images = pictures(4)

    together = augment.view(images, IDS[:4], number=2, seed=9, settings=EVERYTHING)
    alone = augment.view(images[3:], IDS[3:4], number=2, seed=9, settings=EVERYTHING)
    other_view = augment.view(images, IDS[:4], number=3, seed=9, settings=EVERYTHING)
    other_seed = augment.view(images, IDS[:4], number=2, seed=8, settings=EVERYTHING)

    np.testing.assert_array_equal(together[3:], alone)
    assert not np.array_equal(together, other_view)
    assert not np.array_equal(together, other_seed)


def test_draws_fill_their_ranges_and_stay_inside() -> None:
    drawn = augment.draw(IDS, view=1, seed=0, side=100, settings=EVERYTHING)

    a, b, _, c, d, _, _, _ = drawn.transforms.T
    scale = np.sqrt(np.abs(a * d - b * c))
    turn = np.arctan2(np.abs(c), np.abs(a)) / (2 * np.pi)
    for values, low, high in ((scale, 0.8, 1.2), (turn, 0, 0.1), (drawn.gain, 0.7, 1.3), (drawn.shift, -25.5, 25.5)):
        margin = 0.05 * (high - low)
        assert low - 1e-3 <= values.min() < low + margin
        assert high - margin < values.max() <= high + 1e-3


def test_turning_and_scaling_leave_the_middle_in_place() -> None:
    settings = NOTHING.model_copy(update={"rotation": 0.5, "zoom": 0.5, "horizontal_flip": True})

    transforms = augment.draw(IDS, view=1, seed=0, side=31, settings=settings).transforms

    middle = np.array([15, 15, 1], np.float32)
    np.testing.assert_allclose(transforms[:, :3] @ middle, 15, atol=1e-3)
    np.testing.assert_allclose(transforms[:, 3:6] @ middle, 15, atol=1e-3)


def test_a_moved_image_repeats_its_edge() -> None:
    image = pictures(1, side=4)

    moved = augment.apply(image, draws(transform=(1, 0, 2, 0, 1, 0, 0, 0)))

    np.testing.assert_array_equal(moved[0], image[0][:, [2, 3, 3, 3]])


@pytest.mark.parametrize(
    ("gain", "shift", "expected"),
    [(1, 20, [60, 220]), (1, 100, [140, 255]), (0.5, 0, [80, 160]), (2, 0, [0, 255])],
    ids=["brighter", "saturates", "flatter", "starker"],
)
def test_brightness_and_contrast(gain: float, shift: float, expected: list[int]) -> None:
    image = np.array([[[[40] * 3, [200] * 3]] * 2], np.uint8)  # mean 120

    changed = augment.apply(image, draws(gain=gain, shift=shift))

    assert changed[0, 0, :, 0].tolist() == expected
