"""Inception v1 (GoogLeNet; Szegedy et al. 2014) as TF-Slim's `inception_v1`: BatchNorm without scale, epsilon 1e-3,
padding as TensorFlow's "same", and 3 x 3 convolutions where the paper has 5 x 5.

Takes float [N, S, S, 3] scaled by mode `tf`, gives float32 [N, S/32, S/32, 1024]. keras.applications does not have
it, and nobody publishes its weights where they could be fetched safely without an account; TF-Slim's checkpoint
`inception_v1_2016_08_28` and TF-Hub's or Kaggle's `imagenet/inception_v1/feature_vector` hold them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import layers

from pipeline.errors import ModelError

_STEM = {
    "Conv2d_1a_7x7": (64, 7, 2),
    "Conv2d_2b_1x1": (64, 1, 1),
    "Conv2d_2c_3x3": (192, 3, 1),
}  # filters, size, stride


class _Mixed(NamedTuple):
    """Filters of the four branches; the middle ones are reduced to `three_in` and `five_in` channels first."""

    one: int
    three_in: int
    three: int
    five_in: int
    five: int
    pooled: int


_MIXED = {
    "Mixed_3b": _Mixed(64, 96, 128, 16, 32, 32),
    "Mixed_3c": _Mixed(128, 128, 192, 32, 96, 64),
    "Mixed_4b": _Mixed(192, 96, 208, 16, 48, 64),
    "Mixed_4c": _Mixed(160, 112, 224, 24, 64, 64),
    "Mixed_4d": _Mixed(128, 128, 256, 24, 64, 64),
    "Mixed_4e": _Mixed(112, 144, 288, 32, 64, 64),
    "Mixed_4f": _Mixed(256, 160, 320, 32, 128, 128),
    "Mixed_5b": _Mixed(256, 160, 320, 32, 128, 128),
    "Mixed_5c": _Mixed(384, 192, 384, 48, 128, 128),
}
_POOLED_BEFORE = {"Conv2d_2b_1x1": ("MaxPool_2a_3x3", 3), "Mixed_3b": ("MaxPool_3a_3x3", 3)} | {
    "Mixed_4b": ("MaxPool_4a_3x3", 3),
    "Mixed_5b": ("MaxPool_5a_2x2", 2),
}


def build(size: int, *, pretrained: bool) -> keras.Model:
    """The backbone for images of `size` x `size` pixels. Raises `ModelError` when asked for ImageNet's weights."""
    if pretrained:
        raise ModelError(
            "ImageNet weights of inception_v1 are not published where they could be fetched safely.",
            fix="set train.weights to TF-Slim's inception_v1.ckpt, or to the folder of TF-Hub's or Kaggle's "
            "imagenet/inception_v1/feature_vector, here or in a bucket (s3://)",
        )
    x = inputs = keras.Input((size, size, 3))
    for name, (filters, kernel, stride) in _STEM.items():
        x = _convolved(_pooled(x, name), filters, kernel, name, stride)
    for name, mixed in _MIXED.items():
        x = _mixed(_pooled(x, name), mixed, name)
    return keras.Model(inputs, x, name="inception_v1")


def variables(model: keras.Model) -> dict[str, Any]:
    """The model's variables by the names that TF-Slim gave them: `InceptionV1/Conv2d_1a_7x7/weights`, …"""
    return {
        f"InceptionV1/{_slim_name(layer.name)}/{'weights' if variable.name == 'kernel' else variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
    }


def _slim_name(layer: str) -> str:
    """`Mixed_3b-Branch_0-Conv2d_0a_1x1-conv` -> `Mixed_3b/Branch_0/Conv2d_0a_1x1`; TF-Slim numbered one wrongly."""
    name = layer.removesuffix("-conv").replace("-", "/")
    return name.replace("Mixed_5b/Branch_2/Conv2d_0b_3x3", "Mixed_5b/Branch_2/Conv2d_0a_3x3")


def _pooled(x: Any, before: str) -> Any:
    if before not in _POOLED_BEFORE:
        return x
    name, window = _POOLED_BEFORE[before]
    return layers.MaxPooling2D(window, strides=2, padding="same", name=name)(x)


def _mixed(x: Any, mixed: _Mixed, name: str) -> Any:
    one = _convolved(x, mixed.one, 1, f"{name}-Branch_0-Conv2d_0a_1x1")
    three = _convolved(x, mixed.three_in, 1, f"{name}-Branch_1-Conv2d_0a_1x1")
    three = _convolved(three, mixed.three, 3, f"{name}-Branch_1-Conv2d_0b_3x3")
    five = _convolved(x, mixed.five_in, 1, f"{name}-Branch_2-Conv2d_0a_1x1")
    five = _convolved(five, mixed.five, 3, f"{name}-Branch_2-Conv2d_0b_3x3")
    pooled = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}-Branch_3-MaxPool_0a_3x3")(x)
    pooled = _convolved(pooled, mixed.pooled, 1, f"{name}-Branch_3-Conv2d_0b_1x1")
    return layers.Concatenate(name=name)([one, three, five, pooled])


def _convolved(x: Any, filters: int, kernel: int, name: str, stride: int = 1) -> Any:
    """The last layer carries the name of the whole, so that the backbone can be cut there."""
    convolution = layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False, name=f"{name}-conv")
    x = layers.BatchNormalization(epsilon=1e-3, momentum=0.9997, scale=False, name=f"{name}-BatchNorm")(convolution(x))
    return layers.ReLU(name=name)(x)
