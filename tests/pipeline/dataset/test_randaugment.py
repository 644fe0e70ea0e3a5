from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pipeline.dataset import augment, randaugment
from pipeline.dataset.presets import Policy

HEIGHT, WIDTH = 40, 64


def picture(seed: int) -> Image.Image:
    """Smooth colours of a narrow range with some noise, so that every operation shows."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(40, 220, (5, 8, 3), np.uint8)).resize((WIDTH, HEIGHT), 3)
    return Image.fromarray((np.asarray(coarse) * 0.9 + random.integers(0, 12, (HEIGHT, WIDTH, 3))).astype(np.uint8))


PICTURES = [picture(1), picture(2)]


def only(name: str, sign: float, magnitude: float) -> NDArray[np.uint8]:
    """What one operation makes of two pictures of different histograms, in one batch."""
    number = randaugment._OPERATIONS.index(name)
    unit = np.array([[[(number + 0.5) / 14, 0.25 if sign < 0 else 0.75]]] * 2, np.float32)
    policy = Policy(randaugment=1, magnitude=magnitude)
    extra = randaugment.draw(unit, policy)
    still = {name: np.full(2, 0.5, np.float32) for name in augment._NUMBERS}
    draws = dict(extra.tables) | augment._colour(still, extra, policy)
    draws["affine"] = augment._affine(still, np.array([True, True]), extra, policy, HEIGHT, WIDTH)
    return np.asarray(augment.apply(np.stack([np.asarray(one) for one in PICTURES]), draws, fill="constant"))


def moved(a: float, b: float, c: float, d: float, e: float, f: float) -> Callable[[Image.Image], Image.Image]:
    """By Pillow, whose pixels have their middle at 0.5, not at 0: output (x, y) shows a x + b y + c, d x + e y + f."""
    x, y = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    c, f = c + x - a * x - b * y, f + y - d * x - e * y
    data = (a, b, c + 0.5 - (a + b) / 2, d, e, f + 0.5 - (d + e) / 2)
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


TURN = np.deg2rad(15)
PILLOW: list[tuple[str, float, Callable[[Image.Image], Image.Image]]] = [  # all at magnitude 0.5
    ("identity", 1, lambda image: image),
    ("shear_x", 1, moved(1, 0.15, 0, 0, 1, 0)),
    ("shear_x", -1, moved(1, -0.15, 0, 0, 1, 0)),
    ("shear_y", 1, moved(1, 0, 0, 0.15, 1, 0)),
    ("shear_y", -1, moved(1, 0, 0, -0.15, 1, 0)),
    ("shift_x", 1, moved(1, 0, WIDTH * 75 / 331, 0, 1, 0)),
    ("shift_x", -1, moved(1, 0, -WIDTH * 75 / 331, 0, 1, 0)),
    ("shift_y", 1, moved(1, 0, 0, 0, 1, HEIGHT * 75 / 331)),
    ("shift_y", -1, moved(1, 0, 0, 0, 1, -HEIGHT * 75 / 331)),
    ("turn", 1, moved(np.cos(TURN), -np.sin(TURN), 0, np.sin(TURN), np.cos(TURN), 0)),
    ("turn", -1, moved(np.cos(TURN), np.sin(TURN), 0, -np.sin(TURN), np.cos(TURN), 0)),
    ("brightness", 1, lambda image: ImageEnhance.Brightness(image).enhance(1.45)),
    ("brightness", -1, lambda image: ImageEnhance.Brightness(image).enhance(0.55)),
    ("saturation", 1, lambda image: ImageEnhance.Color(image).enhance(1.45)),
    ("saturation", -1, lambda image: ImageEnhance.Color(image).enhance(0.55)),
    ("contrast", 1, lambda image: ImageEnhance.Contrast(image).enhance(1.45)),
    ("contrast", -1, lambda image: ImageEnhance.Contrast(image).enhance(0.55)),
    ("sharpness", 1, lambda image: ImageEnhance.Sharpness(image).enhance(1.45)),
    ("sharpness", -1, lambda image: ImageEnhance.Sharpness(image).enhance(0.55)),
    ("posterize", 1, lambda image: ImageOps.posterize(image, 6)),
    ("solarize", 1, lambda image: ImageOps.solarize(image, 128)),
    ("autocontrast", 1, ImageOps.autocontrast),
    ("equalize", 1, ImageOps.equalize),
]


@pytest.mark.parametrize(("name", "sign", "expected"), PILLOW, ids=[f"{name}{sign:+}" for name, sign, _ in PILLOW])
def test_each_operation_is_pillows(name: str, sign: float, expected: Callable[[Image.Image], Image.Image]) -> None:
    found = only(name, sign, 0.5).astype(int)

    for one, image in zip(found, PICTURES, strict=True):
        difference = np.abs(one - np.asarray(expected(image)).astype(int))
        if name.startswith(("shear", "shift", "turn")):  # across the edge of the picture Pillow does not interpolate
            whole = np.asarray(expected(Image.new("L", image.size, 255)).filter(ImageFilter.MinFilter(5))) == 255
            assert difference[2:-2, 2:-2][whole[2:-2, 2:-2]].max() <= 1
            nothing = expected(Image.new("L", image.size, 255)).filter(ImageFilter.MaxFilter(5))
            assert (one[np.asarray(nothing) == 0] == 0).all()
        else:
            assert difference.max() <= (2 if name in {"saturation", "sharpness"} else 1)
        if name != "identity":
            assert np.abs(one - np.asarray(image)).max() > 2


@pytest.mark.parametrize("name", [name for name in randaugment._OPERATIONS if name not in {"autocontrast", "equalize"}])
def test_no_strength_changes_nothing(name: str) -> None:
    np.testing.assert_array_equal(only(name, 1, 0.0), np.stack([np.asarray(one) for one in PICTURES]))


def test_one_colour_is_left_alone_by_what_stretches() -> None:
    flat = np.full((1, 5, 6, 3), 77, np.uint8)
    for name in ("autocontrast", "equalize"):
        tables = {"sharpness": 1.0, "levels": 1.0, "solarize": 256.0, "autocontrast": 0.0, "equalize": 0.0} | {
            name: 1.0
        }
        draws = {key: np.array([value], np.float32) for key, value in tables.items()}
        np.testing.assert_array_equal(augment.apply(flat, draws, fill="nearest"), flat)


def test_operations_are_drawn_evenly_with_both_signs_and_so_many() -> None:
    unit = np.random.default_rng(0).random((7000, 2, 2), np.float32)
    extra = randaugment.draw(unit, Policy(randaugment=2, magnitude=0.5))

    tables = {name: np.asarray(values) for name, values in extra.tables.items()}
    signed = {"shear_x": 0.15, "shear_y": 0.15, "turn": 15 / 360, "shift_x": 75 / 331, "shift_y": 75 / 331}
    once = [np.isclose(np.abs(getattr(extra, name)), size) for name, size in signed.items()]
    once += [
        np.isclose(np.abs(np.asarray(getattr(extra, n)) - 1), 0.45) for n in ("brightness", "saturation", "contrast")
    ]
    once += [np.isclose(np.abs(tables["sharpness"] - 1), 0.45)]
    chosen = [tables["levels"] == 4, tables["solarize"] == 128, tables["autocontrast"] == 1, tables["equalize"] == 1]
    for count in (values.mean() for values in once):
        assert count == pytest.approx(2 / 14 * 13 / 14, abs=0.02)  # exactly one of the two
    for count in (values.mean() for values in chosen):
        assert count == pytest.approx(1 - (13 / 14) ** 2, abs=0.02)  # one or both
    assert 0.45 < (np.asarray(extra.turn) > 0).sum() / (np.asarray(extra.turn) != 0).sum() < 0.55
    changed = sum(values.astype(int) for values in once) + sum(values.astype(int) for values in chosen)
    assert changed.max() == 2


def test_an_operation_that_is_drawn_twice_adds_up_or_cancels() -> None:
    turn = (randaugment._OPERATIONS.index("turn") + 0.5) / 14
    unit = np.array([[[turn, 0.9], [turn, 0.9]], [[turn, 0.9], [turn, 0.1]]], np.float32)

    extra = randaugment.draw(unit, Policy(randaugment=2, magnitude=0.5))

    np.testing.assert_allclose(extra.turn, [30 / 360, 0], atol=1e-7)
