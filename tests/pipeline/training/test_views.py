from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.settings import Augment
from pipeline.training import views
from pipeline.training.views import Recipe, Shuffled
from tests.pipeline.training import tiny

SETTINGS = Augment(
    horizontal_flip=True, vertical_flip=False, rotation=0.05, translation=0.1, zoom=0.1, brightness=0.1, contrast=0.1
)


def test_view_zero_is_what_the_network_gives_for_the_image() -> None:
    model = tiny.make(2)
    images, classes, _ = tiny.pictures(7)

    made = views.embed(model, tiny.dataset(7), 7, Recipe(2, 5, SETTINGS), batch_size=4, keep_maps=True, what="embed")

    maps = model.lower.predict_on_batch(images)
    assert made.maps is not None
    np.testing.assert_allclose(made.maps[0], maps, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(made.features[0], model.middle.predict_on_batch(maps), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(made.classes, classes)
    assert made.features.shape == (3, 7, 8)
    assert not np.allclose(made.features[0], made.features[1])
    assert not np.allclose(made.features[1], made.features[2])


def test_views_do_not_depend_on_the_batch_size() -> None:
    model = tiny.make(1)
    recipe = Recipe(1, 5, SETTINGS)

    one, other = (
        views.embed(model, tiny.dataset(6), 6, recipe, batch_size=size, keep_maps=False, what="embed")
        for size in (2, 5)
    )

    np.testing.assert_allclose(one.features, other.features, rtol=1e-5, atol=1e-6)
    assert one.maps is None


def test_map_bytes_counts_half_precision_numbers() -> None:
    model = tiny.make(1)  # cut behind a block of 8 x 8 x 6

    assert views.map_bytes(model, 10, Recipe(3, 0, SETTINGS)) == 10 * 4 * 8 * 8 * 6 * 2


def batches(seed: int, passes: int = 1, *, count: int = 12, size: int = 4) -> Shuffled:
    inputs = np.arange(3 * count, dtype=np.float16).reshape(3, count, 1)  # view * count + image
    classes = np.arange(count, dtype=np.int64) % 2
    return Shuffled(inputs, classes, np.array([1, 5], np.float32), batch_size=size, seed=seed, passes=passes)


def rows(data: Shuffled) -> np.ndarray:
    return np.concatenate([data[i][0][:, 0] for i in range(len(data))])


def test_an_epoch_takes_each_image_once_in_any_of_its_views() -> None:
    data = batches(0)

    taken = rows(data)

    assert sorted(taken % 12) == list(range(12))
    assert len(set(taken // 12)) == 3


def test_as_many_passes_as_views_take_every_view_once() -> None:
    assert sorted(rows(batches(0, passes=3))) == list(range(36))


def test_inputs_classes_and_weights_stay_together() -> None:
    inputs, classes, weights = batches(0)[1]

    np.testing.assert_array_equal(classes, inputs[:, 0] % 12 % 2)
    np.testing.assert_array_equal(weights, np.where(classes == 1, 5, 1))
    assert inputs.dtype == np.float32


def test_order_follows_from_the_seed_and_changes_with_the_epoch() -> None:
    one, same, other = batches(0), batches(0), batches(1)
    first = rows(one)
    np.testing.assert_array_equal(first, rows(same))
    assert not np.array_equal(first, rows(other))

    one.on_epoch_end()
    same.on_epoch_end()

    assert not np.array_equal(first, rows(one))
    np.testing.assert_array_equal(rows(one), rows(same))


def test_fewer_images_than_a_batch_make_one_batch() -> None:
    data = batches(0, count=3, size=32)

    assert len(data) == 1
    assert len(data[0][0]) == 3


def test_online_batches_alter_images_anew_in_each_epoch_and_repeat_on_demand() -> None:
    def epochs() -> list[list[np.ndarray]]:
        endless = views.online(
            tiny.dataset(8), 8, np.array([1, 2, 3], np.float32), Recipe(0, 5, SETTINGS), batch_size=4
        )
        taken = [list(batch) for batch in itertools.islice(endless.as_numpy_iterator(), 4)]
        return [[np.concatenate(parts) for parts in zip(*taken[i : i + 2], strict=True)] for i in (0, 2)]

    first, second = epochs()
    again, _ = epochs()

    for images, classes, weights in (first, second):
        assert images.shape == (8, tiny.SIZE, tiny.SIZE, 3)
        assert images.dtype == np.uint8
        assert sorted(classes) == sorted(tiny.pictures(8)[1])
        np.testing.assert_array_equal(weights, classes + 1)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(np.sort(first[0].mean((1, 2, 3))), np.sort(second[0].mean((1, 2, 3))))


@pytest.mark.parametrize(
    ("balanced", "expected"),
    [(True, [10 / (3 * 6), 10 / (3 * 3), 10 / 3]), (False, [1, 1, 1])],
    ids=["balanced", "none"],
)
def test_class_weights(balanced: bool, expected: list[float]) -> None:
    classes = np.array([0] * 6 + [1] * 3 + [2], np.int64)

    np.testing.assert_allclose(views.class_weights(classes, 3, balanced=balanced), expected, rtol=1e-6)
