from __future__ import annotations

import keras
import numpy as np
import pytest

from pipeline.backbones.scaling import InputScaling
from pipeline.training import classifier, filters
from pipeline.training.classifier import Classifier
from tests.pipeline.training import tiny


@pytest.mark.parametrize("pooling", ["average", "max", "average_max", "blocks"])
@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
def test_the_pieces_together_are_the_whole(blocks: int, pooling: str) -> None:
    model = tiny.make(pooling=pooling)
    images, _, _ = tiny.pictures(4)
    set_logits(model)
    pieces = model.cut(blocks)

    given = pieces.lower.predict_on_batch(images)

    pooled = blocks == 0 or (pooling == "blocks" and blocks < 3)  # of three blocks the first and the last are tapped
    assert set(given) == ({"maps"} if blocks else set()) | ({"pooled"} if pooled else set())
    whole = model.whole.predict_on_batch(images)
    np.testing.assert_allclose(whole, keras.ops.softmax(pieces.upper(given)), atol=1e-6)
    assert whole.dtype == np.float32
    assert whole.std() > 0.01


def set_logits(model: Classifier) -> None:
    layer = model.whole.get_layer("logits")
    layer.set_weights([np.random.default_rng(0).normal(size=layer.kernel.shape), np.array([0.1, 0.2, 0.3])])


@pytest.mark.parametrize("blocks", [1, 3], ids=["one", "all"])
def test_filters_come_first_in_their_order(blocks: int) -> None:
    plain, filtered = tiny.make(), tiny.make(filters=("contours", "grayscale"))
    images, _, _ = tiny.pictures(4)
    seen = filters.apply(images, ["contours", "grayscale"])

    maps = filtered.cut(blocks).lower.predict_on_batch(images)["maps"]

    np.testing.assert_allclose(maps, plain.cut(blocks).lower.predict_on_batch(seen)["maps"], atol=1e-5)
    assert not np.allclose(maps, plain.cut(blocks).lower.predict_on_batch(images)["maps"], atol=0.1)
    assert [layer.name for layer in filtered.whole.layers[1:3]] == ["contours", "grayscale"]
    for model in (plain, filtered):
        set_logits(model)
    whole = filtered.whole.predict_on_batch(images)
    np.testing.assert_allclose(whole, plain.whole.predict_on_batch(seen), atol=1e-5)
    assert whole.std() > 0.01


def test_at_first_the_head_alone_learns() -> None:
    model = tiny.make(hidden=(5,))

    assert {w.path.split("/")[-2] for w in model.whole.trainable_weights} == {"hidden_0", "logits"}
    assert model.whole.get_layer("probabilities").classes == tiny.CLASSES


@pytest.mark.parametrize("pooling", ["average", "max", "average_max", "blocks"])
def test_pooling(pooling: str) -> None:
    model = tiny.make(pooling=pooling)
    images, _, _ = tiny.pictures(4)
    outputs = [model.backbone.output, model.backbone.get_layer("stem").output]
    top, stem = keras.Model(model.backbone.input, outputs).predict_on_batch(InputScaling("tf")(images))
    mean, largest = top.mean(axis=(1, 2)), top.max(axis=(1, 2))
    expected = {
        "average": mean,
        "max": largest,
        "average_max": np.concatenate([mean, largest], axis=1),
        "blocks": np.concatenate([mean, largest, stem.mean(axis=(1, 2)), stem.max(axis=(1, 2))], axis=1),
    }

    given = model.cut(0).lower.predict_on_batch(images)

    np.testing.assert_allclose(given["pooled"], expected[pooling], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norms", [False, True], ids=["frozen BatchNorm", "trained BatchNorm"])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_last_blocks_learn_and_batch_norm_only_when_told(blocks: int, norms: bool) -> None:
    model = tiny.make()
    images, classes, _ = tiny.pictures(24)
    pieces = model.cut(blocks)
    given = pieces.lower.predict_on_batch(images)
    before = {w.path: w.numpy() for w in model.whole.weights}

    classifier.unfreeze(model, blocks, batch_norm=norms, decay=1.0)
    pieces.upper.compile(keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pieces.upper.fit(given, classes, epochs=3, batch_size=8, verbose=0)

    changed = {w.path.split("/")[-2] for w in model.whole.weights if not np.array_equal(w.numpy(), before[w.path])}
    learning = {"top", "block", "stem"} - set(("stem", "block", "top")[: 3 - blocks])
    expected = {f"{name}_conv" for name in learning} | ({f"{name}_bn" for name in learning} if norms else set())
    assert changed == expected | {"logits"}


def test_rates_fall_from_block_to_block() -> None:
    model = tiny.make()

    shares = classifier.unfreeze(model, 2, batch_norm=False, decay=0.5)

    by_layer = {path.split("/")[-2]: share for path, share in shares.items()}
    assert by_layer == {"top_conv": 0.5, "block_conv": 0.25}


def test_what_is_frozen_again_learns_no_more() -> None:
    model = tiny.make()
    classifier.unfreeze(model, 3, batch_norm=True, decay=1.0)

    classifier.unfreeze(model, 1, batch_norm=False, decay=1.0)

    assert {w.path.split("/")[-2] for w in model.cut(3).upper.trainable_weights} == {"top_conv", "logits"}


def test_standardised_features_have_mean_zero_and_near_unit_spread() -> None:
    model = tiny.make()
    features = np.random.default_rng(1).normal(5, 3, (500, 8)).astype(np.float32)

    classifier.standardise(model, features.mean(axis=0), features.var(axis=0))

    standardised = keras.ops.convert_to_numpy(model.whole.get_layer("standardise")(features))
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(standardised.std(axis=0), 1 / np.sqrt(1.05), rtol=0.02)


def test_each_piece_of_the_features_has_its_own_floor() -> None:
    model = tiny.make(pooling="average_max")
    features = np.random.default_rng(1).normal(0, 1, (500, 16)).astype(np.float32)
    features[:, 8:] *= 100  # maxima

    classifier.standardise(model, features.mean(axis=0), features.var(axis=0))

    standardised = keras.ops.convert_to_numpy(model.whole.get_layer("standardise")(features))
    np.testing.assert_allclose(standardised.std(axis=0), 1 / np.sqrt(1.05), rtol=0.03)


def test_a_unit_that_was_dead_in_training_cannot_drown_the_others() -> None:
    model = tiny.make()
    features = np.random.default_rng(1).normal(0, 1, (500, 8)).astype(np.float32)
    features[:, 0] = 0
    classifier.standardise(model, features.mean(axis=0), features.var(axis=0))

    excited = np.ones((1, 8), np.float32)

    assert float(keras.ops.max(model.whole.get_layer("standardise")(excited))) < 6


def test_identical_images_give_finite_features() -> None:
    model = tiny.make()

    classifier.standardise(model, np.ones(8), np.zeros(8))

    assert np.isfinite(model.whole.get_layer("standardise")(np.ones((1, 8), np.float32))).all()
