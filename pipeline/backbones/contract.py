"""Proof that a backbone is fed as it was trained: on images that are known, with the weights that were loaded.

Three proofs, in this order of strength:

- `recorded`: for weights whose digest is in `contract.json`, the features of the known images are those on record.
- `batchnorm`: BatchNorm remembers mean and variance of what went into it in training. What the known images, which
  have ImageNet's statistics, send into the first one is compared with that, for the scaling that the registry
  declares and for all others: the Kullback-Leibler divergence of two normal distributions, per channel, at most 5,
  averaged. Networks that were trained on ImageNet have 0.03 to 0.05 when fed rightly, 0.6 and more otherwise.
- none: without BatchNorm, or where it fits no scaling well (trained on other pictures, quantised).

Either way features must be finite and differ from image to image. See docs/adr/0016.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline import files
from pipeline.backbones import known_images, scaling
from pipeline.backbones.backbone import Backbone
from pipeline.backbones.scaling import InputScaling
from pipeline.errors import ModelError

logger = logging.getLogger(__name__)

RECORDS = Path(__file__).with_name("contract.json")
UNIT = "0-1"  # pixels divided by 255 and nothing else: no mode of ours, the commonest mistake
TOLERANCE = 0.02  # of recorded features, relative; blue for red is 0.2, another backend 1e-5
FITS = 0.12  # divergence of ImageNet networks fed rightly: 0.030, 0.046
DIFFERS = 0.3  # and of the same fed wrongly: 0.60 and more
FAR = 2.5  # no pictures explain this: networks of signs or tiles have 1.8 at most when fed rightly
_CLIP = 5.0  # one channel of near-zero variance must not decide
_PROJECTED = 16


@dataclass(frozen=True)
class Proof:
    """`divergences`: scaling -> divergence; empty where nothing can be compared."""

    kind: Literal["recorded", "batchnorm", "untrained", "none"]
    divergences: dict[str, float]


def verify(model: keras.Model, backbone: Backbone, identity: str) -> Proof:
    """Prove that `model`, with the weights of this `identity`, wants its input as `backbone` declares.

    Takes about a second. Raises `ModelError` that names the scaling that would fit.
    """
    size = model.input.shape[1]
    features = pooled_features(model, backbone, known_images.make(size))
    if not np.isfinite(features).all() or np.ptp(features, axis=0).max() == 0:
        raise ModelError(
            f"{backbone.name}: expected features that are finite and differ between images, got others.",
            fix="the weights are damaged or of another network: get them again",
        )
    recorded = _recorded().get(identity)
    if recorded is not None and recorded["size"] == size and _apart(features, recorded) <= TOLERANCE:
        return Proof("recorded", {})
    found = divergences(model, backbone.native_size)
    if recorded is not None:
        return _judge_recorded(found, recorded, backbone, size, features)
    if found is None:
        return Proof("none", {})
    if not found:
        return Proof("untrained", {})
    return _judge(found, backbone, identity)


def pooled_features(model: keras.Model, backbone: Backbone, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, C], of uint8 images [N, S, S, 3]."""
    maps = keras.ops.convert_to_numpy(model(InputScaling(backbone.scaling)(images), training=False))
    pooled: NDArray[np.float32] = maps.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
    return pooled


def divergences(model: keras.Model, native_size: int) -> dict[str, float] | None:
    """Scaling -> how far what it sends into the first BatchNorm is from what that remembers.

    None without BatchNorm, empty where it has seen nothing yet.
    """
    images = _pieces(model.input.shape[1], native_size)
    norm = next((layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)), None)
    if norm is None:
        return None
    mean = np.asarray(keras.ops.convert_to_numpy(norm.moving_mean), np.float64)
    variance = np.asarray(keras.ops.convert_to_numpy(norm.moving_variance), np.float64)
    if not mean.any() and (variance == 1).all():
        return {}
    entry = keras.Model(model.input, norm.input)
    fed = {str(mode): InputScaling(mode) for mode in scaling.MODES} | {UNIT: lambda pixels: pixels / np.float32(255)}
    found = {}
    for name, scale in fed.items():
        sent = np.asarray(keras.ops.convert_to_numpy(entry(scale(images), training=False)), np.float64)
        axes = tuple(range(sent.ndim - 1))
        apart = _divergence(sent.mean(axes), sent.var(axes) + norm.epsilon, mean, variance + norm.epsilon)
        found[name] = float(np.minimum(apart, _CLIP).mean())
    return found


def _pieces(size: int, native_size: int) -> NDArray[np.uint8]:
    """Known images as large as the network was trained on, cut up if it is built for smaller ones.

    Scaled down they would be busier than what BatchNorm remembers: InceptionV3 at 75 pixels 0.30 instead of 0.05.
    """
    if size >= native_size:
        return known_images.make(size)
    whole = known_images.make(native_size)
    starts = range(0, native_size - size + 1, size)
    return np.concatenate([whole[:, top : top + size, left : left + size] for top in starts for left in starts])


def record(model: keras.Model, backbone: Backbone) -> dict[str, Any]:
    """What `contract.json` holds of weights, by their identity."""
    size = model.input.shape[1]
    projected = _project(pooled_features(model, backbone, known_images.make(size)))
    found = divergences(model, backbone.native_size)
    return {
        "backbone": backbone.name,
        "divergence": None if not found else round(found[backbone.scaling], 3),
        "features": [[float(f"{value:.5g}") for value in row] for row in projected],
        "size": size,
    }


def _divergence(
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
    other_mean: NDArray[np.float64],
    other_variance: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Kullback-Leibler, of the first normal distribution from the second; in nats."""
    ratio = variance / other_variance
    result: NDArray[np.float64] = (ratio - np.log(ratio) - 1 + (mean - other_mean) ** 2 / other_variance) / 2
    return result


def _judge(found: dict[str, float], backbone: Backbone, identity: str) -> Proof:
    declared = found[backbone.scaling]
    best = min(found, key=lambda name: found[name])
    if (declared > DIFFERS and found[best] <= FITS) or (declared > FAR and found[best] < declared / 2):
        raise ModelError(
            f"{backbone.name}: expected weights that were trained on images scaled as {backbone.scaling!r}, these were "
            f"trained on {best!r} (BatchNorm's divergence is {found[best]:.2g} with it, {declared:.2g} with "
            f"{backbone.scaling!r}).",
            fix=f"give weights that were trained as keras.applications feeds {backbone.name}, or set train.backbone to "
            "the network that they belong to",
        )
    if declared > DIFFERS:
        logger.warning(
            "%s: it cannot be proven that the weights %s want their input as %r: BatchNorm remembers other pictures "
            "than ImageNet's (divergence %.2g; %r is nearest, %.2g). Correct for a network trained from scratch on "
            "other pictures; compare its features in a linear probe before you rely on it",
            *(backbone.name, identity, backbone.scaling, declared, best, found[best]),
        )
        return Proof("none", found)
    return Proof("batchnorm", found)


def _judge_recorded(
    found: dict[str, float] | None,
    recorded: dict[str, Any],
    backbone: Backbone,
    size: int,
    features: NDArray[np.float32],
) -> Proof:
    """At another size than on record the divergence must be that on record; at the same, the features are not."""
    declared = found[backbone.scaling] if found else None
    if size != recorded["size"]:
        if declared is None or abs(declared - recorded["divergence"]) <= 0.1 + 0.2 * recorded["divergence"]:
            return Proof("recorded", found or {})
        apart = f"BatchNorm's divergence is {declared:.2g} instead of {recorded['divergence']:.2g}"
    else:
        apart = f"features of known images differ from those on record by {_apart(features, recorded):.0%}"
    best = min(found, key=lambda name: found[name]) if found else "another one"
    raise ModelError(
        f"{backbone.name}: expected weights that were trained on images scaled as {backbone.scaling!r}, but {apart}; "
        f"{best!r} would fit best.",
        fix="the network is built or fed otherwise than when it was recorded: take the entry of the registry as it is",
    )


def _apart(features: NDArray[np.float32], recorded: dict[str, Any]) -> float:
    expected = np.array(recorded["features"])
    return float(np.linalg.norm(_project(features) - expected) / np.linalg.norm(expected))


def _project(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """[N, C] to [N, 16]: sums with random signs, which keep distances (Achlioptas 2003)."""
    signs = np.random.default_rng(7).random((features.shape[1], _PROJECTED)) < 0.5
    result: NDArray[np.float64] = features.astype(np.float64) @ np.where(signs, 1.0, -1.0)
    return result


@cache
def _recorded() -> dict[str, Any]:
    """Identity of weights -> `record`."""
    found: dict[str, Any] = files.read_json(RECORDS)
    return found
