from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import settings
from pipeline.dataset import augment
from pipeline.dataset.presets import Policy
from pipeline.training import views
from pipeline.training.classifier import Classifier
from pipeline.training.feature_cache import Cache, Shelf, Stored
from pipeline.training.roles import Item
from pipeline.training.views import Alteration, Shuffled
from tests.pipeline.training import tiny

POLICY = Policy(horizontal_flip=True, rotation=0.05, translation=0.1, zoom=0.1, brightness=0.1, contrast=0.1)
MIRRORED = (True, True, False)


def recipe(altered: int = 0, policy: Policy = POLICY) -> Alteration:
    return Alteration(altered, 5, policy, MIRRORED)


def items(count: int) -> list[Item]:
    _, classes, ids = tiny.pictures(count)
    return [Item(name, 0, number) for name, number in zip(ids, classes.tolist(), strict=True)]


class Images:
    """Gives what `embed` asks for, and remembers it."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, []

    def __call__(self, view: int, keep: Mapping[str, int]) -> tf.data.Dataset:
        self.asked += [(view, name) for name in keep]
        ids = tf.constant(sorted(keep))
        return tiny.dataset(self.count, view).filter(lambda found: tf.reduce_any(found["id"] == ids))


def embed(model: Classifier, images: Images, number: int, altered: int, shelves: list[Shelf], size: int = 4) -> Stored:
    network = keras.Model(model.whole.input, {"features": model.cut(0).lower.output["pooled"]})
    network.compile(jit_compile="auto")
    given = views.embed(
        network, {"features": shelves}, images, items(number), recipe(altered), batch_size=size, what="embed"
    )
    return given["features"]


def test_view_zero_is_what_the_network_gives_for_the_image_and_others_are_altered() -> None:
    model = tiny.make()

    given = embed(model, Images(7), 7, 2, [Shelf(None) for _ in range(3)])

    expected = model.cut(0).lower.predict_on_batch(tiny.pictures(7)[0])["pooled"]
    assert given.shape == (3, 7, 8)
    np.testing.assert_allclose(given.view(0), expected, rtol=1e-3, atol=1e-5)
    assert not np.allclose(given.view(0), given.view(1))
    assert not np.allclose(given.view(1), given.view(2))


def test_only_what_is_new_is_computed_and_it_is_what_a_full_pass_gives(tmp_path: Path) -> None:
    model = tiny.make()
    first, second = Images(7), Images(10)
    embed(model, first, 7, 1, [Cache(tmp_path, 10**9).shelf({"view": view}) for view in range(2)])

    # Another process: the shelves are opened again.
    given = embed(model, second, 10, 1, [Cache(tmp_path, 10**9).shelf({"view": view}) for view in range(2)])

    assert len(first.asked) == 14
    assert sorted(second.asked) == [(view, f"0-{number}") for view in range(2) for number in (7, 8, 9)]
    full = embed(model, Images(10), 10, 1, [Shelf(None), Shelf(None)], size=3)
    for view in range(2):
        np.testing.assert_allclose(given.view(view), full.view(view), rtol=1e-5, atol=1e-6)


def batches(
    seed: int, passes: int = 1, *, count: int = 12, size: int = 4, classes: np.ndarray | None = None, **more: Any
) -> Shuffled:
    shelves = [Shelf(None) for _ in range(3)]
    names = [str(number) for number in range(count)]
    for view, shelf in enumerate(shelves):
        shelf.add(names, np.arange(count, dtype=np.float16).reshape(count, 1) + view * count)
    classes = np.arange(count, dtype=np.int64) % 2 if classes is None else classes
    weights = np.array([1, 5], np.float32)
    return Shuffled({"x": Stored(shelves, names)}, classes, weights, batch_size=size, seed=seed, passes=passes, **more)


def rows(data: Shuffled) -> np.ndarray:
    return np.concatenate([data[i][0]["x"][:, 0] for i in range(len(data))])


def test_an_epoch_takes_each_image_once_in_any_of_its_views() -> None:
    data = batches(0)

    taken = rows(data)

    assert sorted(taken % 12) == list(range(12))
    assert len(set(taken // 12)) == 3


def test_as_many_passes_as_views_take_every_view_once() -> None:
    assert sorted(rows(batches(0, passes=3))) == list(range(36))


def test_inputs_classes_and_weights_stay_together() -> None:
    inputs, classes, weights = batches(0)[1]
    inputs = inputs["x"]

    np.testing.assert_array_equal(classes, inputs[:, 0] % 12 % 2)
    np.testing.assert_array_equal(weights, np.where(classes == 1, 5, 1))
    assert inputs.dtype == np.float32


def test_order_follows_from_the_seed_and_the_epoch() -> None:
    first = rows(batches(0))

    np.testing.assert_array_equal(first, rows(batches(0)))
    assert not np.array_equal(first, rows(batches(1)))
    assert not np.array_equal(first, rows(batches(0, epoch=1)))
    np.testing.assert_array_equal(rows(batches(0, epoch=1)), rows(batches(0, epoch=1)))


@pytest.mark.parametrize("passes", [1, 3])
def test_balanced_batches_hold_every_class_equally_often(passes: int) -> None:
    counts = []
    for epoch in range(20):
        data = batches(0, passes, classes=np.array([0] * 10 + [1] * 2), balanced=True, epoch=epoch)
        taken = rows(data).astype(int) % 12
        assert len(taken) == 12 * passes
        counts.append(np.bincount(taken, minlength=12) / passes)

    mean = np.mean(counts, axis=0)
    np.testing.assert_allclose(mean[:10], 12 / (2 * 10), atol=0.25)
    np.testing.assert_allclose(mean[10:], 12 / (2 * 2), atol=0.25)


def test_fewer_images_than_a_batch_make_one_batch() -> None:
    data = batches(0, count=3, size=32)

    assert len(data) == 1
    assert len(data[0][1]) == 3


WEIGHTS = np.array([1, 2, 3], np.float32)


def test_the_draws_of_online_batches_are_those_of_the_image_its_view_and_its_class() -> None:
    """So what training sees in epoch 2 is what anybody can compute again for view 2."""
    endless = views.online(tiny.batches(8, 4), WEIGHTS, recipe())
    taken = list(itertools.islice(endless.as_numpy_iterator(), 4))
    pictures, classes, ids = tiny.pictures(8)

    for number, (inputs, given, weights) in enumerate(taken):
        rows = slice(number % 2 * 4, number % 2 * 4 + 4)
        draws = {name: array for name, array in inputs.items() if name != "image"}
        shown = keras.ops.convert_to_numpy(augment.apply(inputs["image"], draws, fill="nearest"))
        expected = augment.altered(
            pictures[rows], ids[rows], [number // 2 + 1] * 4, np.array(MIRRORED)[classes[rows]], policy=POLICY, seed=5
        )
        np.testing.assert_array_equal(shown, expected)
        np.testing.assert_array_equal(inputs["image"], pictures[rows])
        np.testing.assert_array_equal(given, classes[rows])
        np.testing.assert_array_equal(weights, classes[rows] + 1)


def test_a_stored_copy_is_altered_otherwise_than_its_image() -> None:
    image = tiny.dataset(1, view=1)
    copy = image.map(lambda found: found | {"copy": tf.constant(1, tf.int64)})
    both = [next(views.online(data.batch(1), WEIGHTS, recipe()).as_numpy_iterator())[0] for data in (image, copy)]

    assert not np.allclose(both[0]["affine"], both[1]["affine"])


def test_mixed_batches_have_probabilities_and_mixed_weights() -> None:
    endless = views.online(tiny.batches(6, 6), WEIGHTS, recipe(policy=Policy(mixup=1.0)))
    inputs, targets, weights = next(endless.as_numpy_iterator())
    pictures, classes, _ = tiny.pictures(6)

    assert targets.shape == (6, 3)
    own = targets[np.arange(6), classes]  # neighbours are of other classes, so this is the share of the image itself
    mixed = own[:, None, None, None] * pictures + (1 - own[:, None, None, None]) * np.roll(pictures, 1, axis=0)
    np.testing.assert_allclose(inputs["image"], mixed, atol=0.51)
    np.testing.assert_allclose(weights, own * WEIGHTS[classes] + (1 - own) * np.roll(WEIGHTS[classes], 1), rtol=1e-5)


@pytest.mark.parametrize("policy", [POLICY, Policy(), Policy(randaugment=2, erase=0.3)], ids=["usual", "none", "rand"])
def test_the_model_alters_in_training_only_and_as_the_draws_say(policy: Policy) -> None:
    inputs = keras.Input((tiny.SIZE, tiny.SIZE, 3), dtype="uint8")
    model = views.altering(keras.Model(inputs, keras.layers.Identity(dtype="uint8")(inputs)), recipe(policy=policy))
    given, _ = next(
        views.unaltered(tiny.dataset(4, view=1), 4, recipe(policy=policy), batch_size=4).as_numpy_iterator()
    )
    pictures, classes, ids = tiny.pictures(4)

    expected = augment.altered(pictures, ids, [1] * 4, np.array(MIRRORED)[classes], policy=policy, seed=5)
    np.testing.assert_array_equal(model(given, training=True), expected)
    np.testing.assert_array_equal(model(given, training=False), pictures)


def test_validation_batches_are_counted_and_in_order() -> None:
    checked = views.unaltered(tiny.dataset(7), 7, recipe(), batch_size=3)

    assert int(checked.cardinality()) == 3
    images = np.concatenate([inputs["image"] for inputs, _ in checked.as_numpy_iterator()])
    np.testing.assert_array_equal(images, tiny.pictures(7)[0])


def test_classes_that_are_never_mirrored_are_known_by_their_number() -> None:
    chosen = settings.load(settings.code_root() / "params.yaml").augment.model_copy(update={"never_mirror": ("green",)})

    assert views.alteration(1, chosen, tiny.CLASSES).mirrored == (True, False, True)


@pytest.mark.parametrize(
    ("balanced", "expected"),
    [(True, [10 / (3 * 6), 10 / (3 * 3), 10 / 3]), (False, [1, 1, 1])],
    ids=["balanced", "none"],
)
def test_class_weights(balanced: bool, expected: list[float]) -> None:
    classes = np.array([0] * 6 + [1] * 3 + [2], np.int64)

    np.testing.assert_allclose(views.class_weights(classes, 3, balanced=balanced), expected, rtol=1e-6)
