"""Whether an exported model feeds its backbone as the registry says, shown on known images.

At loading, the weights were proven to belong to the scaling that the registry declares (`backbones.contract`). Here
the file is held to it that goes live: what really arrives at the backbone inside it is compared with what the
registry's scaling makes of the same pictures. A second division by 255, blue for red, or a forgotten layer shows, be
the rest of the model as it may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.backbones import contract, known_images
from pipeline.backbones.backbone import Backbone
from pipeline.backbones.scaling import InputScaling
from pipeline.settings import Filter
from pipeline.training import filters as image_filters
from pipeline.training import parity

TOLERANCE = 1e-3  # of the registry's range at the backbone's input; another scaling is off by 0.004 (lite and tf) to 1


@dataclass(frozen=True)
class Finding:
    passed: bool
    detail: str  # a sentence


def check(model: keras.Model, backbone: Backbone, filters: Sequence[Filter]) -> Finding:
    """Hold `model`, images uint8 [N, S, S, 3] to probabilities, to the entry of the registry. Takes a second or two."""
    body = next((layer for layer in model.layers if isinstance(layer, keras.Model)), None)
    if body is None:
        return Finding(False, f"The model holds no backbone as a layer; expected {backbone.name}.")
    images = known_images.make(model.input.shape[1])
    problem = (
        _scaled_otherwise(model, body, backbone, filters, images)
        or _remembers_otherwise(body, backbone)
        or _takes_floats(model, images)
        or _answers_nothing(model, images, filters)
    )
    if problem is not None:
        return Finding(False, problem)
    return Finding(
        True,
        f"Known images arrive at {backbone.name} scaled as {backbone.scaling!r}; floats are refused; "
        "black, white and known images get finite answers that differ.",
    )


def _scaled_otherwise(
    model: keras.Model, body: keras.Model, backbone: Backbone, filters: Sequence[Filter], images: NDArray[np.uint8]
) -> str | None:
    before = model.layers[model.layers.index(body) - 1]  # up to the backbone the layers are a row
    arriving = _numpy(keras.Model(model.input, before.output)(images, training=False))
    filtered = images
    for layer in image_filters.make(filters):
        filtered = layer(filtered)
    expected = _numpy(InputScaling(backbone.scaling)(filtered))
    if arriving.shape != expected.shape:
        return f"Expected images {list(expected.shape)} at {backbone.name}, there arrives {list(arriving.shape)}."
    apart = float(np.abs(arriving - expected).max() / np.ptp(expected))
    if apart <= TOLERANCE:  # NaN is not
        return None
    return (
        f"Expected known images to arrive at {backbone.name} scaled as {backbone.scaling!r} "
        f"({_range(expected)}), they arrive as {_range(arriving)}, off by {apart:.1%} of that range."
    )


def _remembers_otherwise(body: keras.Model, backbone: Backbone) -> str | None:
    """Only where another scaling fits as well as ImageNet's do theirs: other pictures would explain the rest."""
    found = contract.divergences(body, backbone.native_size)
    if not found:
        return None
    best = min(found, key=lambda name: found[name])
    if found[backbone.scaling] <= contract.DIFFERS or found[best] > contract.FITS:
        return None
    return (
        f"The first BatchNorm of {backbone.name} was trained on images scaled as {best!r} (divergence "
        f"{found[best]:.2g}), it is fed {backbone.scaling!r} ({found[backbone.scaling]:.2g})."
    )


def _takes_floats(model: keras.Model, images: NDArray[np.uint8]) -> str | None:
    try:
        model(images[:1].astype(np.float32) / 255)
    except (TypeError, ValueError):
        return None
    return "Expected the model to refuse floats in 0-1, it casts them to black images and answers."


def _answers_nothing(model: keras.Model, images: NDArray[np.uint8], filters: Sequence[Filter]) -> str | None:
    plain = np.stack([np.zeros_like(images[0]), np.full_like(images[0], 255)])
    answer = parity.answering(model)
    black, white, *known = np.concatenate([_numpy(answer(plain)), _numpy(answer(images))])
    if not np.isfinite([black, white, *known]).all():
        return "Expected finite answers to black, white and known images, some are not."
    if not filters and np.array_equal(black, white):  # edges see nothing in either
        return "Expected different answers to a black and a white image, they are the same."
    if all(np.array_equal(known[0], other) for other in known[1:]):
        return "Expected answers to known images that differ, they are all the same."
    return None


def _numpy(tensor: object) -> NDArray[np.float64]:
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float64)


def _range(values: NDArray[np.float64]) -> str:
    return f"{values.min():.4g} to {values.max():.4g}"
