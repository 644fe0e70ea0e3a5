from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.backbones.scaling import InputScaling, PixelModel

PIXEL = np.array([[[[0, 127, 255]]]], np.uint8)  # red, green, blue


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("tf", [-1.0, -0.0039216, 1.0]),
        ("caffe", [255 - 103.939, 127 - 116.779, 0 - 123.68]),
        ("torch", [-2.1179039, 0.1876751, 2.64]),
        ("lite", [-0.9921875, 0.0, 1.0]),
        ("signed", [-1.0, -0.0078125, 0.9921875]),
        ("none", [0.0, 127.0, 255.0]),
    ],
    ids=["tf", "caffe", "torch", "lite", "signed", "none"],
)
def test_each_mode_gives_what_its_backbones_were_trained_on(mode: str, expected: list[float]) -> None:
    scaled = keras.ops.convert_to_numpy(InputScaling(mode)(PIXEL))

    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[0, 0, 0], expected, atol=1e-4)


def test_the_mode_travels_with_the_saved_model(tmp_path: Path) -> None:
    inputs = keras.Input((1, 1, 3), dtype="uint8")
    keras.Model(inputs, InputScaling("caffe")(inputs)).save(tmp_path / "m.keras")

    loaded = keras.saving.load_model(tmp_path / "m.keras")

    assert float(loaded(PIXEL)[0, 0, 0, 0]) == pytest.approx(255 - 103.939)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'caffe', 'lite', 'none', 'signed', 'tf', 'torch'.*'cafe'"):
        InputScaling("cafe")


@pytest.fixture
def model() -> keras.Model:
    images = keras.Input((2, 2, 3), dtype="uint8")
    return PixelModel(images, keras.layers.GlobalAveragePooling2D()(InputScaling("caffe")(images)))


WAYS = {
    "call": lambda model, batch: model(batch),
    "predict": lambda model, batch: model.predict(batch, verbose=0),
    "predict_on_batch": lambda model, batch: model.predict_on_batch(batch),
    "dataset": lambda model, batch: model.predict(tf.data.Dataset.from_tensors(batch), verbose=0),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_of_pixels_refuses_what_was_scaled_before(model: keras.Model, way: str, tmp_path: Path) -> None:
    pixels = np.full((1, 2, 2, 3), 255, np.uint8)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    for tried in (model, loaded):
        tried.compile(jit_compile=False)
        np.testing.assert_allclose(WAYS[way](tried, pixels), [[151.061, 138.221, 131.32]], atol=1e-4)
        for batch in (pixels / np.float32(255), pixels.astype(np.float32), pixels.astype(np.int32)):
            with pytest.raises(TypeError, match=r"Expected images as uint8 in 0-255, got (float32|int32)"):
                WAYS[way](tried, batch)


def test_without_it_keras_makes_black_images_of_scaled_ones() -> None:
    """The reason for `PixelModel`; when this fails, Keras has learned to object."""
    images = keras.Input((2, 2, 3), dtype="uint8")
    model = keras.Model(images, keras.layers.Rescaling(1.0)(images))

    assert not np.any(model(np.full((1, 2, 2, 3), 0.9, np.float32)))
