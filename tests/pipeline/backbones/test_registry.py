from __future__ import annotations

import inspect
import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline import settings
from pipeline.backbones import applications, registry
from pipeline.backbones.backbone import Backbone
from pipeline.backbones.scaling import InputScaling
from pipeline.errors import ModelError, SettingsError

# One of each family; the others of it differ in numbers that `test_every_network_...` checks without building.
BUILT = (
    "convnext_tiny",
    "densenet121",
    "efficientnet_b1",
    "efficientnet_lite0",
    "efficientnet_v2_b0",
    "inception_resnet_v2",
    "inception_v1",
    "inception_v3",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet50",
    "resnet50v2",
    "vgg16",
    "xception",
)
TRAIN = settings.load(settings.code_root() / "params.yaml").train


# Blocks of every network, as found once in each graph by `flowing_through`.
BLOCKS = {
    **{"convnext_base": 5, "convnext_large": 5, "convnext_small": 5, "convnext_tiny": 5, "convnext_xlarge": 5},
    **{"densenet121": 5, "densenet169": 5, "densenet201": 5},
    **{"efficientnet_b0": 18, "efficientnet_b1": 25, "efficientnet_b2": 25, "efficientnet_b3": 28},
    **{"efficientnet_b4": 34, "efficientnet_b5": 41, "efficientnet_b6": 47, "efficientnet_b7": 57},
    **{"efficientnet_lite0": 18, "efficientnet_v2_b0": 23, "efficientnet_v2_b1": 29, "efficientnet_v2_b2": 30},
    **{"efficientnet_v2_b3": 34, "efficientnet_v2_l": 81, "efficientnet_v2_m": 59, "efficientnet_v2_s": 42},
    **{"inception_resnet_v2": 43, "inception_v1": 11, "inception_v3": 11, "xception": 14},
    **{"mobilenet": 14, "mobilenet_v2": 19, "mobilenet_v3_large": 17, "mobilenet_v3_small": 13},
    **{"nasnet_large": 2, "nasnet_mobile": 2},
    **{"resnet101": 34, "resnet101v2": 34, "resnet152": 51, "resnet152v2": 51, "resnet50": 17, "resnet50v2": 17},
    **{"vgg16": 5, "vgg19": 5},
}


def flowing_through(model: keras.Model) -> set[str]:
    """Operations through which all data flows: what is made before one of them is not used after it."""
    operations = model.operations
    place = {id(operation): number for number, operation in enumerate(operations)}
    last_use = [0] * len(operations)
    for number, operation in enumerate(operations):
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                maker = place.get(id(tensor._keras_history.operation))
                if maker is not None:
                    last_use[maker] = max(last_use[maker], number)
    reached = np.maximum.accumulate([0, *last_use[:-1]])
    return {operation.name for number, operation in enumerate(operations) if reached[number] <= number}


def test_the_names_and_their_blocks() -> None:
    assert {entry.name: entry.blocks for entry in registry.entries()} == BLOCKS
    assert [entry.name for entry in registry.entries()] == sorted(BLOCKS)


@pytest.mark.parametrize("name", BUILT)
def test_a_backbone_builds_at_its_minimum_and_can_be_cut_where_it_says(name: str) -> None:
    entry = registry.get(name)

    backbone = registry.build(entry, weights="none", size=entry.minimum_size)

    assert backbone.name == name
    assert backbone.input.shape[1:] == (entry.minimum_size, entry.minimum_size, 3)
    assert len(backbone.output.shape) == 4
    order = [layer.name for layer in backbone.layers]
    assert len(set(order)) == len(order)
    places = [order.index(end) for end in entry.block_ends]
    assert places == sorted(places), "blocks are not in the order from stem to top"
    assert set(entry.block_ends) <= flowing_through(backbone)
    end = entry.block_ends[-1]
    keras.Model(backbone.get_layer(end).output, backbone.output)  # Keras refuses this where data flows past the cut


def test_two_builds_name_their_layers_alike() -> None:
    entry = registry.get("mobilenet_v3_small")

    first, second = (registry.build(entry, weights="none", size=32) for _ in range(2))

    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


@pytest.mark.parametrize("entry", applications.entries(), ids=lambda entry: entry.name)
def test_digests_and_smallest_sizes_are_those_of_keras(entry: Backbone) -> None:
    folder = Path(inspect.getfile(keras.applications.ResNet50)).parent
    sources = "".join(path.read_text() for path in folder.glob("*.py"))

    # Keras has none for these two.
    assert entry.imagenet in sources or entry.name in {"mobilenet", "mobilenet_v2"}
    assert re.fullmatch("[0-9a-f]{32}|[0-9a-f]{64}", str(entry.imagenet))
    with pytest.raises(ValueError, match=rf"at least {entry.minimum_size}x{entry.minimum_size}"):
        entry.build(entry.minimum_size - 1, pretrained=False)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("densenet121", keras.applications.densenet),
        ("inception_resnet_v2", keras.applications.inception_resnet_v2),
        ("inception_v3", keras.applications.inception_v3),
        ("mobilenet", keras.applications.mobilenet),
        ("mobilenet_v2", keras.applications.mobilenet_v2),
        ("nasnet_large", keras.applications.nasnet),
        ("resnet50", keras.applications.resnet),
        ("resnet152v2", keras.applications.resnet_v2),
        ("vgg16", keras.applications.vgg16),
        ("vgg19", keras.applications.vgg19),
        ("xception", keras.applications.xception),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_scaling_is_that_of_keras(name: str, module: object) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (2, 4, 4, 3), np.uint8)

    scaled = InputScaling(registry.get(name).scaling)(pixels)

    np.testing.assert_allclose(scaled, module.preprocess_input(pixels.astype(np.float32)), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "constructor"),
    [
        ("efficientnet_v2_b0", keras.applications.EfficientNetV2B0),
        ("convnext_tiny", keras.applications.ConvNeXtTiny),
    ],
    ids=["efficientnet_v2_b0", "convnext_tiny"],
)
def test_the_scaling_is_that_of_models_that_scale_themselves(name: str, constructor: object) -> None:
    entry = registry.get(name)
    ours = registry.build(entry, weights="none", size=32)
    theirs = constructor(weights=None, include_top=False, input_shape=(32, 32, 3), include_preprocessing=True)
    scaling = [w for layer in theirs.layers if isinstance(layer, keras.layers.Normalization) for w in layer.weights]
    learned = [w for w in theirs.weights if all(w is not other for other in scaling)]
    for target, source in zip(learned, ours.weights, strict=True):
        target.assign(source)
    pixels = np.random.default_rng(5).integers(0, 256, (1, 32, 32, 3), np.uint8)

    expected = keras.ops.convert_to_numpy(theirs(pixels.astype(np.float32)))

    assert expected.std() > 1e-4
    np.testing.assert_allclose(ours(InputScaling(entry.scaling)(pixels)), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("names", "constructor"),
    [
        (["efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"], keras.applications.EfficientNetV2S),
        (["mobilenet_v3_small", "mobilenet_v3_large"], keras.applications.MobileNetV3Small),
    ],
    ids=["efficientnet_v2", "mobilenet_v3"],
)
def test_the_scaling_is_that_of_models_that_rescale_only(names: list[str], constructor: object) -> None:
    theirs = constructor(weights=None, include_top=False, input_shape=(32, 32, 3), include_preprocessing=True)
    (rescaling,) = (layer for layer in theirs.layers if isinstance(layer, keras.layers.Rescaling))
    pixels = np.random.default_rng(5).integers(0, 256, (1, 4, 4, 3), np.uint8)

    for name in names:
        scaled = InputScaling(registry.get(name).scaling)(pixels)
        np.testing.assert_allclose(scaled, rescaling(pixels.astype(np.float32)), atol=1e-6)
    if names[0] not in BUILT:
        assert set(registry.get(names[0]).block_ends) <= flowing_through(theirs)


@pytest.mark.parametrize(
    ("name", "guess"), [("resnet_50", "did you mean resnet50"), ("zzz", "got 'zzz'")], ids=["close", "far"]
)
def test_an_unknown_backbone_is_answered_with_the_known_ones(name: str, guess: str) -> None:
    with pytest.raises(SettingsError, match=guess) as caught:
        registry.get(name)
    for known in BLOCKS:
        assert known in caught.value.problem


def test_images_that_are_too_small_for_a_backbone_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"train\.input_size: inception_v3 needs at least 75, got 64"):
        registry.check(TRAIN.model_copy(update={"backbone": "inception_v3", "input_size": 64}))


def test_a_weights_file_is_loaded(tmp_path: Path) -> None:
    entry = registry.get("efficientnet_lite0")
    original = registry.build(entry, weights="none", size=32)
    original.save_weights(tmp_path / "mine.weights.h5")

    loaded = registry.build(entry, weights=str(tmp_path / "mine.weights.h5"), size=64)

    for ours, theirs in zip(loaded.weights, original.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    registry.build(registry.get("mobilenet_v2"), weights="none", size=32).save_weights(tmp_path / "m.weights.h5")

    with pytest.raises(ModelError, match=r"m\.weights\.h5 holds no weights for efficientnet_lite0"):
        registry.build(registry.get("efficientnet_lite0"), weights=str(tmp_path / "m.weights.h5"), size=32)


@pytest.mark.parametrize("content", [None, b"no weights"], ids=["missing", "not a weights file"])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "w.weights.h5"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ModelError, match=r"w\.weights\.h5"):
        registry.build(registry.get("efficientnet_lite0"), weights=str(path), size=32)


def test_a_failed_download_says_what_to_do_instead() -> None:
    def offline(size: int, *, pretrained: bool) -> keras.Model:
        raise Exception("URL fetch failure: Name or service not known")  # what Keras raises, of this very class

    entry = replace(registry.get("mobilenet_v2"), build=offline)

    with pytest.raises(ModelError, match=r"URL fetch failure.*Fix: connect.*train\.weights"):
        registry.build(entry, weights="imagenet", size=32)
