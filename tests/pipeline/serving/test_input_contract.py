from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from pipeline.backbones import registry
from pipeline.backbones.scaling import MODES, InputScaling, PixelModel, ScalingMode
from pipeline.serving import input_contract
from pipeline.settings import Filter
from pipeline.training import export
from pipeline.training.layers import Probabilities
from tests.pipeline.training import tiny


def model(*scaling: layers.Layer, kind: type[keras.Model] = PixelModel) -> keras.Model:
    """Tiny's network, fed through these layers, with a head that tells images apart."""
    keras.utils.set_random_seed(0)
    images = fed = keras.Input((tiny.SIZE, tiny.SIZE, 3), dtype="uint8")
    for layer in scaling:
        fed = layer(fed)
    maps = tiny.build(tiny.SIZE, pretrained=False)(fed)
    logits = layers.Dense(3)(layers.GlobalAveragePooling2D()(maps))
    return kind(images, Probabilities(tiny.CLASSES, name="probabilities")(logits))


def detail(found: keras.Model, *, scaling: ScalingMode = "tf", filters: Sequence[Filter] = ()) -> str:
    """What is wrong, empty if nothing is."""
    finding = input_contract.check(found, replace(tiny.ENTRY, scaling=scaling), filters)
    return "" if finding.passed else finding.detail


@pytest.mark.parametrize("mode", MODES)
def test_a_network_that_is_fed_as_the_registry_says_passes_and_under_no_other_name(mode: ScalingMode) -> None:
    found = model(InputScaling(mode))
    assert detail(found, scaling=mode) == ""
    for other in set(MODES) - {mode}:
        assert "arrive" in detail(found, scaling=other)


def test_a_caffe_network_that_is_fed_divided_by_255_is_caught() -> None:
    """The commonest mistake: accuracy falls by tens of points and nothing complains."""
    said = detail(model(layers.Rescaling(1 / 255)), scaling="caffe")
    assert "scaled as 'caffe'" in said
    assert "arrive as 0 to 0.9" in said


@pytest.mark.parametrize(
    "scaling",
    [
        [layers.Rescaling(1 / 255), InputScaling("caffe")],
        [InputScaling("caffe"), layers.Rescaling(1 / 255)],
        [layers.Lambda(lambda x: x[..., ::-1]), InputScaling("caffe")],
        [layers.Rescaling(1.0, offset=1.0), InputScaling("caffe")],
    ],
    ids=["scaled twice", "scaled again", "red for blue", "off by a level"],
)
def test_a_layer_too_many_is_caught(scaling: list[layers.Layer]) -> None:
    assert "arrive" in detail(model(*scaling), scaling="caffe")


def test_a_network_within_the_right_scaling_that_takes_floats_is_caught() -> None:
    assert "refuse floats" in detail(model(InputScaling("tf"), kind=keras.Model))


def test_a_model_that_answers_nothing_is_caught() -> None:
    dead = model(InputScaling("tf"))
    dead.layers[-2].set_weights([np.zeros((8, 3)), np.zeros(3)])
    assert "black and a white" in detail(dead)
    broken = model(InputScaling("tf"))
    broken.layers[-2].set_weights([np.full((8, 3), np.nan), np.zeros(3)])
    assert "finite" in detail(broken)


def test_a_model_without_a_backbone_is_caught() -> None:
    images = keras.Input((8, 8, 3), dtype="uint8")
    assert "no backbone" in detail(PixelModel(images, layers.GlobalAveragePooling2D()(InputScaling("tf")(images))))


@pytest.mark.parametrize("filters", [["edges"], ["contours", "grayscale"], ["clahe"]], ids=str)
def test_filters_come_before_the_scaling_and_edges_see_nothing_in_black_or_white(filters: list[Filter]) -> None:
    whole = tiny.trained(filters=filters).whole
    assert detail(whole, filters=filters) == ""
    assert "arrive" in detail(whole)


def test_the_file_is_held_to_it_not_the_model_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    tiny.trained().whole.save(path)
    assert detail(export.load(path)) == ""


@pytest.mark.parametrize(("scaling", "passed"), [("lite", True), ("caffe", False)])
def test_weights_that_remember_another_scaling_are_caught(scaling: ScalingMode, passed: bool) -> None:
    """Fed as the registry says, but the registry is wrong about these: BatchNorm remembers."""
    entry = registry.get("efficientnet_lite0")
    network = registry.build(entry, weights=registry.IMAGENET, size=64)
    images = keras.Input((64, 64, 3), dtype="uint8")
    pooled = layers.GlobalAveragePooling2D()(network(InputScaling(scaling)(images)))
    whole = PixelModel(images, Probabilities(tiny.CLASSES)(layers.Dense(3)(pooled)))
    finding = input_contract.check(whole, replace(entry, scaling=scaling), [])
    assert finding.passed == passed, finding.detail
    assert passed or "is fed 'caffe'" in finding.detail
