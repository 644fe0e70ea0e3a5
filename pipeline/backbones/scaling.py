"""Pixels to what a backbone was trained on, as a layer inside the model, so that nobody can feed it wrongly.

Input: RGB, 0-255, [N, H, W, 3], of any number type. Output: float32 of the same shape.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import keras
from keras import ops

ScalingMode = Literal["tf", "caffe", "torch", "lite", "signed", "none"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, 0-1
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # BGR, 0-255

MODES: tuple[ScalingMode, ...] = get_args(ScalingMode)

# mode: (reverse the channels, mean, std), on 0-255.
_AFFINE: dict[str, tuple[bool, tuple[float, ...], tuple[float, ...]]] = {
    "tf": (False, (127.5,) * 3, (127.5,) * 3),
    "caffe": (True, _CAFFE_MEAN, (1.0,) * 3),
    "torch": (False, tuple(255 * value for value in _IMAGENET_MEAN), tuple(255 * value for value in _IMAGENET_STD)),
    "lite": (False, (127.0,) * 3, (128.0,) * 3),
    "signed": (False, (128.0,) * 3, (128.0,) * 3),
    "none": (False, (0.0,) * 3, (1.0,) * 3),
}


@keras.saving.register_keras_serializable(package="refit")
class InputScaling(keras.layers.Layer):
    """(x - mean) / std per channel, with the channels reversed first in mode `caffe`.

    `tf`: x / 127.5 - 1. `caffe`: BGR minus ImageNet's mean. `torch`: (x / 255 - mean) / std of ImageNet.
    `lite`: (x - 127) / 128. `signed`: x / 128 - 1. `none`: x as float (the backbone scales itself).
    """

    def __init__(self, mode: ScalingMode, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in _AFFINE:
            raise ValueError(f"Expected a scaling mode out of {sorted(_AFFINE)}, got {mode!r}.")
        self.mode = mode

    def call(self, inputs: Any) -> Any:
        reverse, mean, std = _AFFINE[self.mode]
        x = ops.cast(inputs, self.compute_dtype)
        if reverse:
            x = ops.flip(x, axis=-1)
        return (x - ops.convert_to_tensor(mean, dtype=x.dtype)) / ops.convert_to_tensor(std, dtype=x.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable(package="refit")
class PixelModel(keras.Model):
    """A model of images that takes uint8 and nothing else.

    Keras casts what it is given to the type of the model's input: of floats in 0-1 only black images would be left,
    and it says nothing. Raises `TypeError` instead.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        received = keras.backend.standardize_dtype(inputs.dtype) if hasattr(inputs, "dtype") else type(inputs).__name__
        if received != "uint8":
            raise TypeError(
                f"Expected images as uint8 in 0-255, got {received}; give pixels as they are, scaling is inside."
            )
        return super().call(inputs, training=training, mask=mask)
