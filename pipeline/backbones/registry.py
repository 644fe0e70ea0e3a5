"""The backbones by name: how each is built, what it must be fed, and where it may be cut.

A backbone takes images that `InputScaling` has brought to its scaling mode and gives a feature map
float32 [N, h, w, C]. A new entry is a few lines below.

Keras is imported only when a backbone is built, so that settings can be checked at once and without it.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import ModelError, SettingsError
from pipeline.settings import Train

if TYPE_CHECKING:
    import keras

    from pipeline.backbones.scaling import ScalingMode

IMAGENET = "imagenet"
NONE = "none"
LIVE = "live"


class Builder(Protocol):
    def __call__(self, size: int, *, pretrained: bool) -> keras.Model: ...


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry. Sizes are pixels, height = width.

    `block_ends` names the last layer of each block from stem to top, but for the last block, which ends with the
    backbone. All data flows through each of these layers, so the network can be cut behind any of them.
    """

    name: str
    build: Builder
    scaling: ScalingMode
    native_size: int
    minimum_size: int
    block_ends: tuple[str, ...]

    @property
    def blocks(self) -> int:
        return len(self.block_ends) + 1


def _application(constructor: str, **options: bool) -> Builder:
    """A `keras.applications` model. Its ImageNet weights are downloaded by Keras (checksummed) and cached by it."""

    def build(size: int, *, pretrained: bool) -> keras.Model:
        import keras

        weights = IMAGENET if pretrained else None
        make: Callable[..., keras.Model] = getattr(keras.applications, constructor)
        return make(weights=weights, include_top=False, input_shape=(size, size, 3), **options)

    return build


def _efficientnet_lite0(size: int, *, pretrained: bool) -> keras.Model:
    from pipeline.backbones import efficientnet_lite

    return efficientnet_lite.build(size, pretrained=pretrained)


def _entries() -> tuple[Backbone, ...]:
    mobilenet_strided = {1, 3, 6, 10, 13, 16}  # these blocks of MobileNetV2 have no addition at their end
    return (
        Backbone(
            "efficientnet_lite0",
            _efficientnet_lite0,
            scaling="lite",
            native_size=224,
            minimum_size=32,
            block_ends=("stem", *(f"block_{i}" for i in range(16))),
        ),
        Backbone(
            "mobilenet_v2",
            _application("MobileNetV2"),
            scaling="tf",
            native_size=224,
            minimum_size=32,
            block_ends=(
                "Conv1_relu",
                "expanded_conv_project_BN",
                *(f"block_{i}_{'project_BN' if i in mobilenet_strided else 'add'}" for i in range(1, 17)),
            ),
        ),
        Backbone(
            "inception_v3",
            _application("InceptionV3"),
            scaling="tf",
            native_size=299,
            minimum_size=75,
            block_ends=tuple(f"mixed{i}" for i in range(10)),
        ),
        Backbone(
            "inception_resnet_v2",
            _application("InceptionResNetV2"),
            scaling="tf",
            native_size=299,
            minimum_size=75,
            block_ends=(
                "mixed_5b",
                *(f"block35_{i}_ac" for i in range(1, 11)),
                "mixed_6a",
                *(f"block17_{i}_ac" for i in range(1, 21)),
                "mixed_7a",
                *(f"block8_{i}_ac" for i in range(1, 10)),
            ),
        ),
        Backbone(
            "resnet50",
            _application("ResNet50"),
            scaling="caffe",
            native_size=224,
            minimum_size=32,
            block_ends=(
                "pool1_pool",
                *(f"conv2_block{i}_out" for i in range(1, 4)),
                *(f"conv3_block{i}_out" for i in range(1, 5)),
                *(f"conv4_block{i}_out" for i in range(1, 7)),
                *(f"conv5_block{i}_out" for i in range(1, 3)),
            ),
        ),
        Backbone(
            "efficientnet_v2_b0",
            _application("EfficientNetV2B0", include_preprocessing=False),
            scaling="torch",
            native_size=224,
            minimum_size=32,
            block_ends=(
                "stem_activation",
                "block1a_project_activation",
                *("block2a_project_bn", "block2b_add", "block3a_project_bn", "block3b_add"),
                *("block4a_project_bn", "block4b_add", "block4c_add"),
                *("block5a_project_bn", *(f"block5{letter}_add" for letter in "bcde")),
                *("block6a_project_bn", *(f"block6{letter}_add" for letter in "bcdefgh")),
            ),
        ),
        Backbone(
            # The additions inside of a stage are no named layers, so a block is a stage here.
            "convnext_tiny",
            _application("ConvNeXtTiny", include_preprocessing=False),
            scaling="torch",
            native_size=224,
            minimum_size=32,
            block_ends=("convnext_tiny_stem", *(f"convnext_tiny_downsampling_block_{i}" for i in range(3))),
        ),
    )


def entries() -> tuple[Backbone, ...]:
    """All backbones, by name."""
    return tuple(sorted(_entries(), key=lambda entry: entry.name))


def get(name: str) -> Backbone:
    """Raises `SettingsError` with the known names."""
    known = {entry.name: entry for entry in _entries()}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f", did you mean {close[0]}?" if close else "."
    raise SettingsError(
        f"train.backbone: expected one of {', '.join(sorted(known))}, got {name!r}{guess}",
        fix="set train.backbone to one of them",
    )


def check(settings: Train) -> Backbone:
    """The backbone that `settings` name. Raises `SettingsError` if it does not take their size."""
    backbone = get(settings.backbone)
    if settings.input_size < backbone.minimum_size:
        raise SettingsError(
            f"train.input_size: {backbone.name} needs at least {backbone.minimum_size}, got {settings.input_size}.",
            fix=f"set train.input_size, {backbone.name} was trained with {backbone.native_size}",
        )
    return backbone


def build(backbone: Backbone, *, weights: str, size: int) -> keras.Model:
    """The backbone with its weights, for images of `size` x `size` pixels.

    Args:
        weights: `imagenet`, `none`, or the path of a weights file that Keras wrote for this backbone.

    Raises:
        ModelError: the weights cannot be had, or belong to another network.
    """
    if weights == IMAGENET:
        return _pretrained(backbone, size)
    model = backbone.build(size, pretrained=False)
    if weights != NONE:
        _load(model, backbone, Path(weights).expanduser())
    return model


def _pretrained(backbone: Backbone, size: int) -> keras.Model:
    try:
        return backbone.build(size, pretrained=True)
    except ModelError:
        raise
    except Exception as error:  # Keras raises a bare Exception when its download fails
        raise ModelError(
            f"The ImageNet weights of {backbone.name} could not be loaded: {str(error).strip()}.",
            fix="connect to the network once, or set train.weights to a file (.weights.h5) or to none",
        ) from error


def _load(model: keras.Model, backbone: Backbone, path: Path) -> None:
    if not path.is_file():
        raise ModelError(
            f"train.weights: expected {IMAGENET}, {NONE} or a weights file, found no file at {path}.",
            fix="check the path",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of every layer that does not fit, then raises
            model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        detail = " ".join(str(error).split())
        raise ModelError(
            f"{path.name} holds no weights for {backbone.name} without its classifier: {detail:.300}",
            fix="give a file that save_weights wrote for this backbone (include_top=False, name ending in .weights.h5)",
        ) from error
