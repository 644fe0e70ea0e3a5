"""The backbones by name: how each is built, what it must be fed, and where it may be cut.

A backbone takes images that `InputScaling` has brought to its scaling mode and gives a feature map
float32 [N, h, w, C]. A new entry is a row in `applications.py` or a few lines below.

Keras is imported only when a backbone is built, so that settings can be checked at once and without it.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from pipeline.backbones import applications
from pipeline.backbones.backbone import IMAGENET, LIVE, NONE, Backbone
from pipeline.errors import ModelError, SettingsError
from pipeline.settings import Train

if TYPE_CHECKING:
    import keras

__all__ = ["IMAGENET", "LIVE", "NONE", "Backbone", "build", "check", "entries", "get"]


def _efficientnet_lite0(size: int, *, pretrained: bool) -> keras.Model:
    from pipeline.backbones import efficientnet_lite

    return efficientnet_lite.build(size, pretrained=pretrained)


def _inception_v1(size: int, *, pretrained: bool) -> keras.Model:
    from pipeline.backbones import inception_v1

    return inception_v1.build(size, pretrained=pretrained)


def _inception_v1_variables(model: keras.Model) -> dict[str, Any]:
    from pipeline.backbones import inception_v1

    return inception_v1.variables(model)


def _own() -> tuple[Backbone, ...]:
    """What keras.applications does not have."""
    return (
        Backbone(
            "efficientnet_lite0",
            _efficientnet_lite0,
            scaling="lite",
            native_size=224,
            minimum_size=32,
            block_ends=("stem", *(f"block_{i}" for i in range(16))),
            imagenet="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        Backbone(
            "inception_v1",
            _inception_v1,
            scaling="tf",
            native_size=224,
            minimum_size=32,
            block_ends=(
                *("Conv2d_1a_7x7", "Conv2d_2c_3x3", "Mixed_3b", "Mixed_3c"),
                *("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f", "Mixed_5b"),
            ),
            variables=_inception_v1_variables,
        ),
    )


def _entries() -> tuple[Backbone, ...]:
    return (*_own(), *applications.entries())


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
        weights: `imagenet`, `none`, or where weights lie that fit, see `weights.load`.

    Raises:
        ModelError: the weights cannot be had, belong to another network, or to another scaling of the input.
    """
    from pipeline.backbones import contract
    from pipeline.backbones import weights as loading

    if weights == IMAGENET:
        model = _pretrained(backbone, size)
    else:
        model = backbone.build(size, pretrained=False)
        if weights == NONE:
            return model
        loading.load(model, backbone, weights)
    if not weights.endswith(".keras"):  # such a model says how it scales, which was compared
        contract.verify(model, backbone, loading.identify(backbone, weights))
    return model


def _pretrained(backbone: Backbone, size: int) -> keras.Model:
    try:
        return backbone.build(size, pretrained=True)
    except ModelError:
        raise
    except Exception as error:  # a full disk, a proxy that answers with a page of HTML, …
        raise ModelError(
            f"The ImageNet weights of {backbone.name} could not be loaded: {str(error).strip()}.",
            fix="connect to the network once, or set train.weights to a file (.weights.h5) or to none",
        ) from error
