"""Networks with genuine weights, fed rightly and wrongly. The table of all measurements is in docs/adr/0016."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.backbones import contract, keras_files, registry, weights
from pipeline.backbones.backbone import Backbone
from pipeline.backbones.contract import verify
from pipeline.backbones.scaling import InputScaling
from pipeline.errors import ModelError

LITE = registry.get("efficientnet_lite0")
IDENTITY = weights.identify(LITE, "imagenet")
FILES = Path(__file__).parents[4] / "shared/weights"
needs_files = pytest.mark.skipif(not FILES.is_dir(), reason=f"needs the weights in {FILES}")


@pytest.fixture(scope="module")
def lite() -> keras.Model:
    return LITE.build(224, pretrained=True)


@pytest.fixture(scope="module")
def small() -> keras.Model:
    return LITE.build(96, pretrained=True)


def test_known_weights_are_proven_by_their_features(lite: keras.Model) -> None:
    assert verify(lite, LITE, IDENTITY).kind == "recorded"


@pytest.mark.parametrize("mode", ["torch", "caffe", "none"])
def test_known_weights_fed_otherwise_are_refused(lite: keras.Model, mode: str) -> None:
    with pytest.raises(
        ModelError, match=rf"images scaled as '{mode}', but features .* differ.*'(tf|lite|signed)' would"
    ):
        verify(lite, replace(LITE, scaling=mode), IDENTITY)


def test_red_for_blue_is_found_in_known_weights(lite: keras.Model) -> None:
    """BatchNorm hardly tells them apart, features do."""
    swapped = LITE.build(224, pretrained=True)
    stem = swapped.get_layer("conv_stem")
    stem.set_weights([stem.get_weights()[0][:, :, ::-1]])

    assert verify(swapped, LITE, "file:unknown").kind == "batchnorm"
    with pytest.raises(ModelError, match="differ from those on record by"):
        verify(swapped, LITE, IDENTITY)


def test_unknown_weights_are_proven_by_batchnorm(small: keras.Model) -> None:
    proof = verify(small, LITE, "file:unknown")

    assert proof.kind == "batchnorm"
    right = {"lite", "tf", "signed"}  # at most one of 255 levels apart
    assert max(proof.divergences[name] for name in right) < 0.05
    assert min(value for name, value in proof.divergences.items() if name not in right) > 0.5


@pytest.mark.parametrize("mode", ["torch", "caffe", "none"])
def test_unknown_weights_of_another_scaling_are_refused(small: keras.Model, mode: str) -> None:
    with pytest.raises(ModelError, match=rf"scaled as '{mode}', these were trained on '(tf|lite|signed)'"):
        verify(small, replace(LITE, scaling=mode), "file:unknown")


def first_changed(model: keras.Model, mode: str, scale: float, shift: np.ndarray, flip: bool) -> keras.Model:
    """EfficientNet-Lite0 as if it had been trained on `scale` * pixels + `shift`, with the channels reversed if `flip`.

    Exact but for the border: the first convolution sees the same, and BatchNorm remembers it.
    """
    stem, norm = model.get_layer("conv_stem"), model.get_layer("conv_stem_bn")
    (kernel,) = stem.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    kernel = kernel / 128  # on pixels; `lite` is (x - 127) / 128
    moved = mean + 127 * kernel.sum(axis=(0, 1, 2))
    kernel = kernel[:, :, ::-1] if flip else kernel
    kernel = kernel / scale
    stem.set_weights([kernel])
    norm.set_weights([gamma, beta, moved + np.einsum("hwio,i->o", kernel, shift), variance])
    return model


CAFFE = np.array([103.939, 116.779, 123.68])


def test_pixels_in_0_to_1_never_reach_a_caffe_network_unnoticed() -> None:
    """The commonest mistake, both ways round."""
    trained_on_caffe = first_changed(LITE.build(96, pretrained=True), "caffe", 1.0, -CAFFE, flip=True)
    assert verify(trained_on_caffe, replace(LITE, scaling="caffe"), "file:unknown").kind == "batchnorm"
    assert contract.divergences(trained_on_caffe, 224)["0-1"] > 2
    with pytest.raises(ModelError, match=r"scaled as 'tf', these were trained on 'caffe'"):
        verify(trained_on_caffe, replace(LITE, scaling="tf"), "file:unknown")

    trained_on_unit = first_changed(LITE.build(96, pretrained=True), "0-1", 1 / 255, np.zeros(3), flip=False)
    with pytest.raises(ModelError, match=r"scaled as 'caffe', these were trained on '0-1'"):
        verify(trained_on_unit, replace(LITE, scaling="caffe"), "file:unknown")


def test_networks_that_remember_other_pictures_are_not_refused(
    small: keras.Model, caplog: pytest.LogCaptureFixture
) -> None:
    """Trained from scratch on pictures of little contrast: the nearest scaling is then another, and no proof."""
    dull = LITE.build(96, pretrained=True)
    images = np.random.default_rng(0).integers(100, 140, (8, 96, 96, 3), np.uint8)
    norm = dull.get_layer("conv_stem_bn")
    sent = keras.Model(dull.input, norm.input)(InputScaling(LITE.scaling)(images))
    sent = keras.ops.convert_to_numpy(sent)
    norm.set_weights([*norm.get_weights()[:2], sent.mean((0, 1, 2)), 10 * sent.var((0, 1, 2))])

    with caplog.at_level(logging.WARNING):
        assert verify(dull, LITE, "file:unknown").kind == "none"
    assert "it cannot be proven" in caplog.text


def build_plain(size: int, *, pretrained: bool) -> keras.Model:
    x = inputs = keras.Input((size, size, 3))
    return keras.Model(inputs, layers.Conv2D(4, 3)(x), name="plain")


PLAIN = Backbone("plain", build_plain, "tf", 32, 8, block_ends=())


def test_without_batchnorm_or_training_there_is_nothing_to_prove_it_by(small: keras.Model) -> None:
    assert verify(build_plain(32, pretrained=False), PLAIN, "file:unknown").kind == "none"
    assert verify(LITE.build(96, pretrained=False), LITE, "file:unknown").kind == "untrained"


@pytest.mark.parametrize("value", [np.nan, 0.0], ids=["not finite", "dead"])
def test_features_must_be_finite_and_differ(value: float) -> None:
    model = build_plain(32, pretrained=False)
    model.set_weights([np.full(w.shape, value, np.float32) for w in model.get_weights()])

    with pytest.raises(ModelError, match="features that are finite and differ between images"):
        verify(model, PLAIN, "file:unknown")


@needs_files
@pytest.mark.parametrize("name", ["mobilenet_v2", "inception_v3"])
def test_weights_on_record(name: str) -> None:
    entry, path = registry.get(name), FILES / f"{name}_notop.weights.h5"
    model = entry.build(entry.native_size, pretrained=False)
    keras_files.load(model, path)
    identity = weights.identify(entry, str(path))

    assert verify(model, entry, identity).kind == "recorded"
    with pytest.raises(ModelError, match="scaled as 'torch'"):  # the nearest of the wrong ones
        verify(model, replace(entry, scaling="torch"), identity)


@needs_files
def test_weights_on_record_at_another_size_are_proven_by_batchnorm() -> None:
    path = str(FILES / "mobilenet_v2_notop.weights.h5")
    entry = registry.get("mobilenet_v2")

    model = registry.build(entry, weights=path, size=96)

    identity = weights.identify(entry, path)
    assert verify(model, entry, identity).kind == "recorded"
    with pytest.raises(ModelError, match=r"divergence is 4\.4 instead of 1\.3"):
        verify(model, replace(entry, scaling="caffe"), identity)


SIGNS = FILES.parent / "data/sign_digits"


@pytest.mark.skipif(not (FILES.is_dir() and SIGNS.is_dir()), reason=f"needs the weights in {FILES} and {SIGNS}")
@pytest.mark.parametrize(("name", "size", "least"), [("mobilenet_v2", 96, 0.7), ("inception_v3", 75, 0.5)])
def test_features_of_real_pictures_tell_classes_apart(name: str, size: int, least: float) -> None:
    """Ten signs, 15 pictures of each to learn from and 5 to answer; guessing gives 0.1."""
    entry = registry.get(name)
    model = registry.build(entry, weights=str(FILES / f"{name}_notop.weights.h5"), size=size)
    paths = [path for folder in sorted(SIGNS.iterdir()) for path in sorted(folder.iterdir())[:20]]
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB").resize((size, size))) for path in paths])
    classes = np.repeat(np.arange(10), 20)
    learned = np.arange(200) % 4 != 0

    features = contract.pooled_features(model, entry, pictures)

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    classifier.fit(features[learned], classes[learned])
    assert classifier.score(features[~learned], classes[~learned]) >= least
