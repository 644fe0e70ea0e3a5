from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.backbones.scaling import InputScaling

PIXEL = np.array([[[[0, 127, 255]]]], np.uint8)  # red, green, blue


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("tf", [-1.0, -0.0039216, 1.0]),
        ("caffe", [255 - 103.939, 127 - 116.779, 0 - 123.68]),
        ("torch", [-2.1179039, 0.1876751, 2.64]),
        ("lite", [-0.9921875, 0.0, 1.0]),
        ("none", [0.0, 127.0, 255.0]),
    ],
    ids=["tf", "caffe", "torch", "lite", "none"],
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
    with pytest.raises(ValueError, match=r"'caffe', 'lite', 'none', 'tf', 'torch'.*'cafe'"):
        InputScaling("cafe")
