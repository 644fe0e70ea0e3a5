from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from pipeline import files
from pipeline.backbones import efficientnet_lite, keras_files, registry, weights
from pipeline.backbones.backbone import Backbone
from pipeline.backbones.scaling import InputScaling
from pipeline.errors import ModelError
from pipeline.settings import Head
from pipeline.training import classifier

SIZE = 16


def build_tiny(size: int, *, pretrained: bool) -> keras.Model:
    """Some layers without a name, which Keras then numbers otherwise in each build."""
    x = inputs = keras.Input((size, size, 3))
    for filters in (4, 6, 8):
        x = keras.layers.Conv2D(filters, 3, padding="same")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, x, name="tiny")


HEAD = Head(pooling="average", normalisation="standardise", hidden=None, dropout=0.0)
TINY = Backbone("tiny", build_tiny, "tf", SIZE, 8, block_ends=())


def build_other(size: int, *, pretrained: bool) -> keras.Model:
    """As many layers, and weights of the same shapes."""
    x = inputs = keras.Input((size, size, 3))
    for filters in (4, 6, 8):
        x = keras.layers.Conv2D(filters, 3, padding="same")(x)
        x = keras.layers.Activation("gelu")(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, x, name="other")


OTHER = Backbone("other", build_other, "tf", SIZE, 8, block_ends=())


def randomised(seed: int, build: Callable[..., keras.Model] = TINY.build) -> keras.Model:
    model = build(SIZE, pretrained=False)
    random = np.random.default_rng(seed)
    for layer in model.layers:
        layer.set_weights([random.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in layer.get_weights()])
    return model


def write_legacy(layers: list[keras.Layer], path: Path, group: str = "") -> Path:
    """The layout of Keras 1 and 2, in which keras.applications publishes its weights."""
    with h5py.File(path, "w") as file:
        root = file.create_group(group) if group else file
        root.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            names = [f"{layer.name}/{w.name}:0".encode() for w in layer.weights]
            root.create_group(layer.name).attrs["weight_names"] = names
            for name, weight in zip(names, layer.weights, strict=True):
                root[layer.name].create_dataset(name.decode(), data=keras.ops.convert_to_numpy(weight))
    return path


def assert_same(model: keras.Model, other: keras.Model) -> None:
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("group", ["", "model_weights"], ids=["weights", "whole model"])
@pytest.mark.parametrize("top", [False, True], ids=["without classifier", "with classifier"])
def test_a_legacy_file_is_loaded(tmp_path: Path, group: str, top: bool) -> None:
    original = randomised(1)
    layers = list(original.layers)
    if top:
        layers += [keras.layers.Dense(5, name=name) for name in ("conv_2", "logits")]
        for layer in layers[-2:]:
            layer.build((None, 7))
    model = TINY.build(SIZE, pretrained=False)

    keras_files.load(model, write_legacy(layers, tmp_path / "w.h5", group))

    assert_same(model, original)


def test_the_scaling_layers_of_a_legacy_efficientnet_are_left_out_if_they_are_imagenets(tmp_path: Path) -> None:
    """Against Keras's own network, which takes pixels. As published, the variance is the deviation, and a layer
    without weights divides by its root once more."""
    keras.utils.set_random_seed(5)
    theirs = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    normalization = next(layer for layer in theirs.layers if isinstance(layer, keras.layers.Normalization))
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    entry = registry.get("efficientnet_b0")
    ours = entry.build(32, pretrained=False)

    normalization.set_weights([mean, deviation, np.array(0)])
    keras_files.load(ours, write_legacy(theirs.layers, tmp_path / "published.h5"))

    normalization.set_weights([mean, deviation**2, np.array(0)])
    normalization.finalize_state()
    pixels = np.random.default_rng(5).integers(0, 256, (1, 32, 32, 3), np.uint8)
    expected = keras.ops.convert_to_numpy(theirs(pixels.astype(np.float32)))
    assert expected.std() > 1e-6
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ours(InputScaling(entry.scaling)(pixels)) / scale, expected / scale, atol=1e-4)

    normalization.set_weights([mean, np.array([1.0, 1.0, 1.0]), np.array(0)])
    with pytest.raises(ModelError, match=r"other\.h5 holds no weights for efficientnet_b0: its input is normalised"):
        keras_files.load(ours, write_legacy(theirs.layers, tmp_path / "other.h5"))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda layers: layers[:-3], r"expected \d+ layers with weights, got"),
        (lambda layers: [*layers, built(keras.layers.Dense(3, name="block_9"))], r"expected \d+ layers with weights"),
        (lambda layers: [built(keras.layers.Dense(3, name="odd")), *layers[1:]], r"layer 'odd': expected the shapes"),
    ],
    ids=["layers missing", "layers more", "shape"],
)
def test_a_legacy_file_of_another_network_is_refused(tmp_path: Path, spoil: Any, problem: str) -> None:
    model = TINY.build(SIZE, pretrained=False)
    with_weights = [layer for layer in model.layers if layer.weights]

    with pytest.raises(ModelError, match=rf"w\.h5 holds no weights for tiny: {problem}"):
        keras_files.load(model, write_legacy(spoil(with_weights), tmp_path / "w.h5"))


def built(layer: keras.Layer) -> keras.Layer:
    layer.build((None, 7))
    return layer


def test_a_larger_network_of_the_family_is_refused(tmp_path: Path) -> None:
    """Keras would read the first layers of it and say nothing."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 1)(inputs)
    small = keras.Model(inputs, x, name="small")
    keras.Model(inputs, keras.layers.Conv2D(3, 1)(x)).save_weights(tmp_path / "large.weights.h5")

    with pytest.raises(ModelError, match=r"more layers with weights: \{'conv2d': 1\}"):
        keras_files.load(small, tmp_path / "large.weights.h5")


@pytest.mark.parametrize("kind", ["external link", "external data", "soft link"])
def test_a_file_that_points_to_others_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"a"]
        if kind == "external link":
            file["a"] = h5py.ExternalLink(str(tmp_path / "secret"), "/")
        elif kind == "soft link":
            file["a"] = h5py.SoftLink("/b")
        else:
            group = file.create_group("a")
            group.create_dataset("x", (16,), "f4", external=[(str(tmp_path / "secret"), 0, 64)])

    with pytest.raises(ModelError, match="points to another"):
        keras_files.load(TINY.build(SIZE, pretrained=False), path)


def our_model(backbone: keras.Model, entry: Backbone = TINY) -> keras.Model:
    return classifier.build(backbone, entry, classes=("a", "b"), head=HEAD).whole


def test_a_model_of_ours_gives_its_backbone(tmp_path: Path) -> None:
    original = randomised(2)
    our_model(original).save(tmp_path / "m.keras")

    loaded = registry.build(TINY, weights=str(tmp_path / "m.keras"), size=64)

    assert loaded.input.shape[1] == 64
    assert_same(loaded, original)


def test_a_model_on_another_network_or_scaling_is_refused(tmp_path: Path) -> None:
    backbone = TINY.build(SIZE, pretrained=False)
    our_model(backbone, replace(TINY, scaling="caffe")).save(tmp_path / "caffe.keras")
    with pytest.raises(ModelError, match=r"a model that scales its input as 'tf', it does as \['caffe'\]"):
        registry.build(TINY, weights=str(tmp_path / "caffe.keras"), size=SIZE)

    our_model(backbone).save(tmp_path / "m.keras")
    with pytest.raises(
        ModelError, match=r"no model of Refit that stands on other.*'tiny' has 10 layers, other 10; .*re_lu"
    ):
        registry.build(OTHER, weights=str(tmp_path / "m.keras"), size=SIZE)


@pytest.mark.parametrize("damage", ["no zip", "no config", "no network", "too large", "no weights"])
def test_a_damaged_model_is_refused(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.keras"
    config = {"config": {"layers": []}}
    if damage == "too large":
        monkeypatch.setattr(keras_files, "_CONFIG_LIMIT", 100)
        config["padding"] = "x" * 10_000
    if damage == "no zip":
        path.write_bytes(b"PK nothing")
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            if damage == "no weights":
                whole = tmp_path / "whole.keras"
                our_model(TINY.build(SIZE, pretrained=False)).save(whole)
                archive.writestr("config.json", zipfile.ZipFile(whole).read("config.json"))
            elif damage != "no config":
                archive.writestr("config.json", json.dumps(config))

    with pytest.raises(ModelError, match=r"m\.keras is no model of Refit that stands on tiny"):
        registry.build(TINY, weights=str(path), size=SIZE)


def test_identities_follow_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"abc")
    (tmp_path / "b.h5").write_bytes(b"abc")
    # SHA-256 of "abc", FIPS 180-2.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    assert weights.identify(TINY, str(tmp_path / "a.h5")) == f"file:{digest}"
    assert weights.identify(TINY, str(tmp_path / "b.h5")) == f"file:{digest}"
    assert weights.identify(TINY, "none") == "none"
    name, digest = "mobilenet_v3_small", "d3e8ec802a04aa4fc771ee12a9a9b836"
    assert weights.identify(registry.get(name), "imagenet") == f"imagenet:{name}:{digest}"


def test_the_digest_on_record_is_that_of_the_installed_package() -> None:
    lite = registry.get("efficientnet_lite0")

    assert files.sha256(efficientnet_lite.weights_file()) == lite.imagenet


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"found a folder without a TensorFlow checkpoint at"):
        weights.find(str(tmp_path))
