from __future__ import annotations

import keras
import numpy as np
import pytest

from pipeline.training import classifier, filters
from tests.pipeline.training import tiny


@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
def test_the_pieces_together_are_the_whole(blocks: int) -> None:
    model = tiny.make(blocks)
    images, _, _ = tiny.pictures(4)
    kernel = np.random.default_rng(0).normal(size=(8, 3))
    model.head.get_layer("logits").set_weights([kernel, np.array([0.1, 0.2, 0.3])])

    maps = model.lower.predict_on_batch(images)
    logits = model.head(model.middle(maps))

    np.testing.assert_allclose(model.upper(maps), logits, rtol=1e-5)
    whole = model.whole.predict_on_batch(images)
    np.testing.assert_allclose(whole, keras.ops.softmax(logits), atol=1e-6)
    assert whole.dtype == np.float32
    assert whole.std() > 0.01


@pytest.mark.parametrize("blocks", [1, 3], ids=["one", "all"])
def test_filters_come_first_in_their_order(blocks: int) -> None:
    plain, filtered = tiny.make(blocks), tiny.make(blocks, filters=("contours", "grayscale"))
    images, _, _ = tiny.pictures(4)
    seen = filters.apply(images, ["contours", "grayscale"])

    maps = filtered.lower.predict_on_batch(images)

    np.testing.assert_allclose(maps, plain.lower.predict_on_batch(seen), atol=1e-5)
    assert not np.allclose(maps, plain.lower.predict_on_batch(images), atol=0.1)
    assert [layer.name for layer in filtered.whole.layers[1:3]] == ["contours", "grayscale"]
    kernel = np.random.default_rng(0).normal(size=(8, 3))
    for model in (plain, filtered):
        model.head.get_layer("logits").set_weights([kernel, np.zeros(3)])
    whole = filtered.whole.predict_on_batch(images)
    np.testing.assert_allclose(whole, plain.whole.predict_on_batch(seen), atol=1e-5)
    assert whole.std() > 0.01


def test_the_first_phase_trains_the_head_alone() -> None:
    model = tiny.make(2)

    assert [w.path.split("/")[-2] for w in model.whole.trainable_weights] == ["logits", "logits"]
    assert model.whole.get_layer("probabilities").classes == tiny.CLASSES


@pytest.mark.parametrize(
    ("blocks", "learning"),
    [(0, set()), (1, {"top_conv"}), (2, {"top_conv", "block_conv"}), (3, {"top_conv", "block_conv", "stem_conv"})],
    ids=["none", "one", "two", "all"],
)
def test_the_second_phase_trains_the_last_blocks_but_never_batch_norm(blocks: int, learning: set[str]) -> None:
    model = tiny.make(blocks)
    images, classes, _ = tiny.pictures(24)
    maps = model.lower.predict_on_batch(images)
    before = {w.path: w.numpy() for w in model.whole.weights}

    classifier.unfreeze(model)
    model.upper.compile(keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.upper.fit(maps, classes, epochs=3, batch_size=8, verbose=0)

    changed = {w.path.split("/")[-2] for w in model.whole.weights if not np.array_equal(w.numpy(), before[w.path])}
    assert changed == learning | {"logits"}


def test_standardised_features_have_mean_zero_and_near_unit_spread() -> None:
    model = tiny.make(0)
    features = np.random.default_rng(1).normal(5, 3, (500, 8)).astype(np.float32)

    classifier.standardise(model, features)

    standardised = keras.ops.convert_to_numpy(model.head.get_layer("standardise")(features))
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(standardised.std(axis=0), 1 / np.sqrt(1.05), rtol=0.02)


def test_a_unit_that_was_dead_in_training_cannot_drown_the_others() -> None:
    model = tiny.make(0)
    features = np.random.default_rng(1).normal(0, 1, (500, 8)).astype(np.float32)
    features[:, 0] = 0
    classifier.standardise(model, features)

    excited = np.ones((1, 8), np.float32)

    assert float(keras.ops.max(model.head.get_layer("standardise")(excited))) < 6


def test_identical_images_give_finite_features() -> None:
    model = tiny.make(0)

    classifier.standardise(model, np.ones((4, 8), np.float32))

    assert np.isfinite(model.head.get_layer("standardise")(np.ones((1, 8), np.float32))).all()
