from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.dataset import augment
from pipeline.dataset.presets import PRESETS, Policy
from pipeline.dataset.warp import gathered, warp

EVERYTHING = Policy(
    horizontal_flip=True,
    vertical_flip=True,
    rotation=0.1,
    translation=0.1,
    shear=0.2,
    zoom=0.2,
    brightness=0.1,
    contrast=0.3,
    saturation=0.4,
    hue=0.1,
    erase=0.3,
    randaugment=2,
    magnitude=0.5,
)
IDS = [f"image-{i}" for i in range(400)]


def pictures(count: int, height: int = 12, width: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), np.uint8)


def altered(images: NDArray[np.uint8], policy: Policy, *, view: int = 1, seed: int = 1, first: int = 0) -> Any:
    count = len(images)
    ids = IDS[first : first + count]
    return np.asarray(augment.altered(images, ids, [view] * count, [True] * count, policy=policy, seed=seed))


def draws(policy: Policy, height: int = 100, width: int = 100, *, mirrored: bool = True) -> dict[str, NDArray[Any]]:
    """Of all `IDS`, view 1."""
    found = augment.draw(IDS, [1] * len(IDS), [mirrored] * len(IDS), policy=policy, seed=0, height=height, width=width)
    return {name: np.asarray(array) for name, array in found.items()}


def test_an_image_is_altered_alike_in_every_batch_in_every_order_and_in_a_graph() -> None:
    images = pictures(5)

    together = altered(images, EVERYTHING)

    np.testing.assert_array_equal(altered(images[3:4], EVERYTHING, first=3), together[3:4])
    backwards = augment.altered(images[::-1], IDS[:5][::-1], [1] * 5, [True] * 5, policy=EVERYTHING, seed=1)
    np.testing.assert_array_equal(np.asarray(backwards)[::-1], together)
    data = tf.data.Dataset.from_tensor_slices((images, IDS[:5])).batch(2)
    mapped = data.map(
        lambda batch, ids: augment.altered(
            batch,
            ids,
            tf.ones(tf.shape(ids), tf.int64),
            tf.ones(tf.shape(ids), tf.bool),
            policy=EVERYTHING,
            seed=1,
        )
    )
    np.testing.assert_array_equal(np.concatenate(list(mapped.as_numpy_iterator())), together)


def test_another_view_seed_or_image_is_altered_otherwise() -> None:
    images = np.repeat(pictures(1), 2, axis=0)
    one = altered(images, EVERYTHING)

    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(one, altered(images, EVERYTHING, view=2))
    assert not np.array_equal(one, altered(images, EVERYTHING, seed=2))


def splitmix64(state: int) -> int:
    """Output function of the reference implementation (Vigna 2015), in whole numbers of any size."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_draws_of_a_release_are_those_of_the_next() -> None:
    """Stored copies go by them: raise `copies.VERSION` if this changes."""
    assert splitmix64(1234567 + 0x9E3779B97F4A7C15) == 6457827717110365317  # the published first number of 1234567
    policy = Policy(translation=0.25, brightness=0.5)
    found = augment.draw(["a"], [1], [True], policy=policy, seed=17, height=10, width=20)

    start = int(tf.strings.to_hash_bucket_fast("1/a/17", 2**63 - 1))
    fifth, sixth, ninth = (
        2 * (splitmix64((start + number * 0x9E3779B97F4A7C15) % 2**64) >> 40) / 2**24 - 1 for number in (5, 6, 9)
    )
    drawn = [float(found["affine"][0, 2]), float(found["affine"][0, 5]), float(found["shift"][0])]
    assert drawn == pytest.approx([20 * 0.25 * fifth, 10 * 0.25 * sixth, 255 * 0.5 * ninth], abs=1e-4)
    assert drawn == pytest.approx([-0.67209, -0.87601, 1.07496], abs=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_xla_can_compile_every_preset(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = PRESETS[preset]
    monkeypatch.setattr("pipeline.dataset.warp.on_cpu", lambda: False)
    images = pictures(2)
    found = augment.draw(IDS[:2], [1, 1], [True, True], policy=policy, seed=0, height=12, width=16)

    compiled = tf.function(lambda x, drawn: augment.apply(x, drawn, fill=policy.fill), jit_compile=True)

    difference = np.asarray(compiled(tf.constant(images), found)).astype(int) - altered(images, policy, seed=0)
    assert np.abs(difference).max() <= 1
    assert np.mean(difference != 0) < 0.01


def test_a_policy_of_zeros_changes_nothing() -> None:
    images = pictures(3)

    assert draws(Policy()) == {}
    np.testing.assert_array_equal(altered(images, Policy()), images, strict=True)


@pytest.mark.parametrize(
    ("policy", "axis"),
    [(Policy(horizontal_flip=True), 1), (Policy(vertical_flip=True), 0)],
    ids=["left-right", "up-down"],
)
def test_half_of_the_images_are_mirrored_exactly(policy: Policy, axis: int) -> None:
    images = pictures(400, height=5, width=7)

    view = altered(images, policy)

    mirrored = np.array([np.array_equal(new, np.flip(old, axis)) for new, old in zip(view, images, strict=True)])
    kept = np.array([np.array_equal(new, old) for new, old in zip(view, images, strict=True)])
    assert (mirrored ^ kept).all()
    assert 160 < mirrored.sum() < 240


def test_images_that_may_not_be_mirrored_are_not() -> None:
    images = pictures(100, height=5, width=7)
    both = Policy(horizontal_flip=True, vertical_flip=True)
    allowed = np.arange(100) % 2 == 0

    view = np.asarray(augment.altered(images, IDS[:100], [1] * 100, allowed, policy=both, seed=1))

    same = np.array([np.array_equal(new, old) for new, old in zip(view, images, strict=True)])
    assert same[~allowed].all()
    assert 5 < same[allowed].sum() < 25  # a quarter is mirrored neither way
    turned = draws(Policy(horizontal_flip=True, rotation=0.5, shear=0.3), mirrored=False)["affine"]
    assert (turned[:, 0] * turned[:, 4] - turned[:, 1] * turned[:, 3] > 0).all()  # a mirror image has a negative one


@given(st.floats(0, 0.5), st.floats(0, 0.9), st.floats(0, 0.9), st.booleans(), st.integers(2, 300), st.integers(2, 300))
@settings(max_examples=25)
def test_turning_zooming_and_shearing_leave_the_middle_in_place(
    rotation: float, zoom: float, shear: float, flip: bool, height: int, width: int
) -> None:
    policy = Policy(rotation=rotation, zoom=zoom, shear=shear, horizontal_flip=flip)
    if not policy.moves:
        return
    affine = draws(policy, height, width)["affine"]

    middle = np.array([(width - 1) / 2, (height - 1) / 2, 1])
    np.testing.assert_allclose(affine[:, :3] @ middle, middle[0], atol=1e-4 * max(height, width))
    np.testing.assert_allclose(affine[:, 3:] @ middle, middle[1], atol=1e-4 * max(height, width))


def filled(values: NDArray[Any], low: float, high: float) -> None:
    """Evenly drawn from a range: inside it, near both ends, with the mean in the middle."""
    margin = 0.03 * (high - low)
    assert low - 1e-3 <= values.min() < low + margin
    assert high - margin < values.max() <= high + 1e-3
    assert abs(values.mean() - (low + high) / 2) < 0.06 * (high - low)


def test_movement_fills_its_ranges() -> None:
    turned = draws(Policy(rotation=0.1), 40, 100)["affine"]
    filled(np.arctan2(turned[:, 3], turned[:, 0]) / (2 * np.pi), -0.1, 0.1)
    np.testing.assert_allclose(turned[:, 0] ** 2 + turned[:, 3] ** 2, 1, atol=1e-5)  # pixels stay square
    zoomed = draws(Policy(zoom=0.2), 40, 100)["affine"]
    filled(zoomed[:, 0], 0.8, 1.2)
    np.testing.assert_array_equal(zoomed[:, 0], zoomed[:, 4])
    sheared = draws(Policy(shear=0.3), 40, 100)["affine"]
    filled(sheared[:, 1], -0.3, 0.3)
    filled(sheared[:, 3], -0.3, 0.3)
    moved = draws(Policy(translation=0.25), 40, 100)["affine"]
    filled(moved[:, 2], -25, 25)  # of 100 pixels
    filled(moved[:, 5], -10, 10)  # of 40


def test_colour_fills_its_ranges() -> None:
    filled(draws(Policy(brightness=0.1))["shift"], -25.5, 25.5)
    flattened = draws(Policy(contrast=0.3))
    filled(flattened["gain"], 0.7, 1.3)
    np.testing.assert_allclose(flattened["pivot"], 1 - flattened["gain"], atol=1e-5)
    filled(draws(Policy(saturation=1.0))["matrix"][:, 0, 0], 0.299, 2 - 0.299)  # grey at 0, twice as far from it at 2


def moved(image: NDArray[np.uint8], affine: tuple[float, ...], fill: str) -> NDArray[Any]:
    arguments = image[None].astype(np.float32), np.array([affine], np.float32), fill
    found, everywhere = (np.asarray(move(*arguments))[0] for move in (warp, gathered))
    np.testing.assert_allclose(found, everywhere, atol=1e-3)
    return found


@pytest.mark.parametrize(
    ("fill", "columns"),
    [
        ("nearest", [0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2]),
        ("reflect", [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]),
        ("wrap", [1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]),
        ("constant", [-1, -1, -1, -1, -1, 0, 1, 2, -1, -1, -1, -1, -1]),
    ],
)
def test_what_lies_beyond_the_edge(fill: str, columns: list[int]) -> None:
    image = pictures(1, height=4, width=3)[0]
    black = np.concatenate([image, np.zeros((4, 1, 3), np.uint8)], axis=1)

    for place, column in enumerate(columns):  # the output's first column shows what lies at place - 5
        found = moved(image, (1, 0, place - 5, 0, 1, 0), fill)[:, 0]
        np.testing.assert_array_equal(found, black[:, column])
        upright = moved(image.transpose(1, 0, 2), (1, 0, 0, 0, 1, place - 5), fill)[0]
        np.testing.assert_array_equal(upright, black[:, column])


def test_between_pixels_lies_their_mean_weighted_by_nearness() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0], image[0, 1], image[1, 0], image[1, 1] = 10, 50, 90, 210

    found = moved(image, (1, 0, 0.25, 0, 1, 0.5), "nearest")

    assert found[0, 0, 0] == pytest.approx(0.5 * (0.75 * 10 + 0.25 * 50) + 0.5 * (0.75 * 90 + 0.25 * 210))


def test_a_quarter_turn_of_a_square_is_exact() -> None:
    image = pictures(1, height=5, width=5)[0]

    # Output (x, y) shows input (4 - y, x): what was at the right comes to the top.
    np.testing.assert_array_equal(moved(image, (0, -1, 4, 1, 0, 0), "nearest"), np.rot90(image))


def coloured(image: NDArray[np.uint8], **numbers: float) -> NDArray[np.uint8]:
    """With these random numbers in place of drawn ones; the ranges are the full ones, so 0.5 is no change."""
    policy = Policy(brightness=1, contrast=0.5, saturation=1, hue=0.5)
    unit = {name: np.array([numbers.get(name, 0.5)], np.float32) for name in augment._NUMBERS}
    found = augment._colour(unit, augment.randaugment.NOTHING, policy)
    return np.asarray(augment.apply(image[None], found, fill="nearest"))[0]


def test_brightness_adds_and_saturates() -> None:
    image = np.array([[[40, 0, 10], [200, 255, 250]]], np.uint8)

    lighter = coloured(image, brightness=0.5 + 20 / 510)

    np.testing.assert_array_equal(lighter, [[[60, 20, 30], [220, 255, 255]]])


def test_contrast_pivots_about_the_mean() -> None:
    image = np.array([[[40] * 3, [200] * 3]], np.uint8)  # mean 120

    assert coloured(image, contrast=0.0)[0, :, 0].tolist() == [80, 160]
    assert coloured(image, contrast=1.0)[0, :, 0].tolist() == [0, 240]


def test_no_saturation_is_the_grey_of_rec_601() -> None:
    """0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2."""
    assert coloured(np.array([[[200, 100, 50]]], np.uint8), saturation=0.0).tolist() == [[[124, 124, 124]]]


def test_double_saturation_doubles_the_distance_from_grey() -> None:
    """Grey is 0.299 * 120 + 0.587 * 100 + 0.114 * 90 = 104.84; 2 * 120 - 104.84 = 135.16."""
    assert coloured(np.array([[[120, 100, 90]]], np.uint8), saturation=1.0).tolist() == [[[135, 95, 75]]]


def test_a_third_of_the_hue_circle() -> None:
    """Turned in the plane of I and Q by 120 degrees; the standard library's constants are a little coarser."""
    rgb = np.array([140, 110, 100]) / 255
    luma, i, q = colorsys.rgb_to_yiq(*rgb)
    cos, sin = -0.5, np.sqrt(3) / 2
    expected = np.array(colorsys.yiq_to_rgb(luma, cos * i - sin * q, sin * i + cos * q)) * 255

    found = coloured(np.array([[[140, 110, 100]]], np.uint8), hue=0.5 + 1 / 3)

    np.testing.assert_allclose(found[0, 0], expected, atol=2)
    thrice = found
    for _ in range(2):
        thrice = coloured(thrice, hue=0.5 + 1 / 3)
    np.testing.assert_allclose(thrice[0, 0], [140, 110, 100], atol=2)


@given(st.integers(0, 2**31), st.integers(2, 9))
@settings(max_examples=20)
def test_grey_images_stay_grey(seed: int, side: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (8, side, side, 1), np.uint8).repeat(3, axis=3)

    found = altered(grey, EVERYTHING, seed=seed % 1000).astype(int)

    assert np.ptp(found, axis=3).max() <= 1


def test_half_of_the_images_lose_a_patch_of_allowed_size_and_shape() -> None:
    boxes = draws(Policy(erase=0.3))["erased"]
    hidden = boxes[(boxes[:, 2] > boxes[:, 0])]
    height, width = hidden[:, 2] - hidden[:, 0], hidden[:, 3] - hidden[:, 1]

    assert 160 < len(hidden) < 240
    assert (boxes >= 0).all()
    assert (boxes <= 1 + 1e-6).all()
    filled(height * width, 0.02, 0.3)
    assert (height / width).min() > 0.3 - 1e-3
    assert (height / width).max() < 1 / 0.3 + 1e-2
    assert np.median(height / width) == pytest.approx(1, abs=0.25)


def test_an_erased_patch_shows_the_middle_grey_and_nothing_else_changes() -> None:
    image = np.full((1, 4, 8, 3), 200, np.uint8)

    found = np.asarray(augment.apply(image, {"erased": np.array([[0.25, 0.5, 0.75, 1.0]], np.float32)}, fill="nearest"))

    expected = image.copy()
    expected[0, 1:3, 4:] = 127
    np.testing.assert_array_equal(found, expected)


@given(st.floats(0.05, 1.0), st.integers(1, 2**40))
@settings(max_examples=25)
def test_crops_lie_inside_and_keep_their_area_and_shape(least: float, view: int) -> None:
    top, left, height, width = np.asarray(
        augment.crop(IDS, [view] * len(IDS), policy=Policy(crop=least), seed=0), np.float64
    ).T

    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) <= 1 + 1e-6
    assert (height * width).min() >= least - 1e-5
    assert (height / width).min() >= 0.75 - 1e-4
    assert (height / width).max() <= 4 / 3 + 1e-4


def test_crops_fill_the_range_of_areas_and_reach_every_edge() -> None:
    top, left, height, width = np.asarray(augment.crop(IDS, [1] * len(IDS), policy=Policy(crop=0.3), seed=0)).T

    filled(height * width, 0.3, 1.0)
    for start, extent in ((top, height), (left, width)):
        place = start[extent < 0.9] / (1 - extent[extent < 0.9])
        filled(place, 0, 1)
    assert np.mean(height > width) == pytest.approx(0.5, abs=0.08)


def test_without_cropping_the_crop_is_all_of_the_image() -> None:
    np.testing.assert_array_equal(augment.crop(IDS, [1] * len(IDS), policy=Policy(), seed=0), [[0, 0, 1, 1]] * len(IDS))


def test_drawn_and_carried_out_in_one_graph() -> None:
    """Where TensorFlow's optimizer sees both, it once took the axes away that only one of them needs."""
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 24, 3), np.uint8)
    ids, views = ["a", "b", "c", "d"], np.arange(1, 5)

    def alter(images: Any, ids: Any, views: Any) -> Any:
        mirrored = tf.ones([4], tf.bool)
        return augment.altered(images, ids, views, mirrored, policy=PRESETS["strong"], seed=3)

    [mapped] = tf.data.Dataset.from_tensors((images, ids, views)).map(alter)

    np.testing.assert_array_equal(mapped, alter(images, tf.constant(ids), views))
