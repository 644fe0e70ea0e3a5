"""What the frozen blocks of a backbone give for the images of a part, in one pass for all phases that take it."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.training import views
from pipeline.training.classifier import MAPS, POOLED, Classifier
from pipeline.training.feature_cache import Cache, Shelf, Stored
from pipeline.training.filters import ImageFilter
from pipeline.training.part_images import PartImages
from pipeline.training.roles import Item
from pipeline.training.views import Alteration

logger = logging.getLogger(__name__)

VERSION = 1  # of what is kept; raising it makes everything be computed again
IN_MEMORY_BYTES = 4 << 30  # of maps, where there is no cache
# What reading back and computing anew take, roughly. Four x86-64 cores: EfficientNet-Lite0 (0.8 GFLOP) takes 15 ms of
# one, a 500 px photograph to be read, decoded and altered 4 ms. A GPU: a fifth of an H100's peak, fed by 16 cores.
_STORED_BYTES_PER_SECOND = 1e9


@dataclass(frozen=True)
class _Speed:
    flops_per_second: float
    picture_seconds: float


_CPU, _GPU = _Speed(2e11, 1e-3), _Speed(2e14, 2.5e-4)


@dataclass(frozen=True)
class Given:
    """What `upper` takes, by name: rows of training images [V, N, ...] and of validation images [1, N, ...], both in
    the order of `Roles`."""

    learned: Mapping[str, Stored]
    checked: Mapping[str, Stored]


class Frozen:
    """`given` computes what is not kept yet. `trained` says which blocks have learned since."""

    def __init__(
        self, classifier: Classifier, images: PartImages, cache: Cache, *, batch_size: int, precision: str
    ) -> None:
        self.classifier, self.images, self.cache = classifier, images, cache
        self.batch_size, self.precision = batch_size, precision
        self._given: dict[tuple[int, Alteration], Given] = {}
        self._learned = 0  # blocks from the top that have learned

    def trained(self, blocks: int) -> None:
        """The last `blocks` blocks have learned: what was computed through them holds no longer."""
        self._learned = max(self._learned, blocks)
        self._given = {key: given for key, given in self._given.items() if key[0] >= blocks}

    def worth_keeping(self, blocks: int, alteration: Alteration) -> bool:
        """Whether the inputs of the last `blocks` blocks are read back sooner than computed anew in each epoch.

        Pictures that are mixed anew in each epoch cannot be kept, and a backbone that learns as a whole has nothing
        frozen below it.
        """
        if blocks == 0:
            return True
        if alteration.policy.mixes or blocks >= self.classifier.entry.blocks:
            return False
        lower = self.classifier.cut(blocks).lower
        size = 2 * int(np.prod(lower.output[MAPS].shape[1:]))
        roles = self.images.roles
        total = size * (len(roles.learned) * (alteration.altered + 1) + len(roles.val))
        if total > (self.cache.limit or IN_MEMORY_BYTES):
            logger.info("inputs of the unfrozen blocks would take %.1f GB: computed anew in each epoch", total / 1e9)
            return False
        speed = _GPU if any("gpu" in str(device).lower() for device in keras.distribution.list_devices()) else _CPU
        return size / _STORED_BYTES_PER_SECOND < flops(lower) / speed.flops_per_second + speed.picture_seconds

    def given(self, wanted: Sequence[int], alteration: Alteration) -> Given:
        """What the pieces above take for the first of `wanted`; the others, which are to come, are computed with it.

        `wanted`: numbers of blocks, counted from the top, that learn.
        """
        first = wanted[0]
        lacking = [blocks for blocks in dict.fromkeys(wanted) if (blocks, alteration) not in self._given]
        if first in lacking:
            network = self.classifier.below(lacking)
            digests = {blocks: self._digest(blocks) for blocks in lacking}
            identities = {name: self._identity(name, digests) for name in network.output}
            roles = self.images.roles
            learned = self._embed(network, identities, alteration, "train", roles.learned)
            checked = self._embed(network, identities, replace(alteration, altered=0), "val", roles.checked)
            for blocks in lacking:
                self._given[blocks, alteration] = Given(_named(learned, blocks), _named(checked, blocks))
        return self._given[first, alteration]

    def _embed(
        self,
        network: keras.Model,
        identities: Mapping[str, Mapping[str, Any]],
        alteration: Alteration,
        split: str,
        items: Sequence[Item],
    ) -> dict[str, Stored]:
        return views.embed(
            network,
            {name: self._shelves(identity, alteration) for name, identity in identities.items()},
            functools.partial(self._of_view, alteration, split),
            items,
            alteration,
            batch_size=self.batch_size,
            what=f"embed {split} images",
        )

    def _of_view(self, alteration: Alteration, split: str, view: int, keep: Mapping[str, int]) -> tf.data.Dataset:
        return self.images.of_view(view, keep, alteration, split)

    def _shelves(self, identity: Mapping[str, Any], alteration: Alteration) -> list[Shelf]:
        if identity["blocks"] < self._learned:
            return [Shelf(None) for _ in range(alteration.altered + 1)]  # of this training alone
        made = {"policy": asdict(alteration.policy), "seed": alteration.seed}
        copies = self.images.roles.has_copies  # they are altered even in view 0, unlike the images themselves
        keys = [
            {**identity, "view": view, "made": made if view or copies else None}
            for view in range(alteration.altered + 1)
        ]
        return [self.cache.shelf(key) for key in keys]

    def _digest(self, blocks: int) -> str:
        """Of all weights below a cut."""
        weights = hashlib.sha256()
        for variable in self.classifier.below([blocks]).weights:
            weights.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
        return weights.hexdigest()

    def _identity(self, name: str, digests: Mapping[int, str]) -> dict[str, Any]:
        """All that decides what the frozen blocks give for given pixels, and the pixels for given files."""
        blocks, _, output = name.partition("/")
        return {
            "version": VERSION,
            "backbone": self.classifier.entry.name,
            "blocks": int(blocks),
            "output": output,
            "pooling": self.classifier.pooling if output == POOLED else None,
            "weights": digests[int(blocks)],
            "scaling": self.classifier.entry.scaling,
            "filters": [layer.name for layer in self.classifier.whole.layers if isinstance(layer, ImageFilter)],
            "size": self.classifier.size,
            "pixels": self.images.encoding,
            "precision": self.precision,
        }


def _named(stored: Mapping[str, Stored], blocks: int) -> dict[str, Stored]:
    """What belongs to a cut, by the names that `upper` gives its inputs."""
    prefix = f"{blocks}/"
    return {name.removeprefix(prefix): rows for name, rows in stored.items() if name.startswith(prefix)}


def flops(model: keras.Model) -> float:
    """Floating-point operations for one image: two for each weight of a kernel and place that it is applied to."""
    total = 0.0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += flops(layer)
        else:
            places = int(np.prod(layer.output.shape[1:-1])) if layer.weights else 0
            total += places * sum(2 * int(np.prod(weight.shape)) for weight in layer.weights if len(weight.shape) > 1)
    return total
