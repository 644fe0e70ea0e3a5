"""What the project knows of a backbone before it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import keras

    from pipeline.backbones.scaling import ScalingMode


IMAGENET = "imagenet"  # values of train.weights that are no place
NONE = "none"
LIVE = "live"  # the live model's; whoever builds a network says where that lies


class Builder(Protocol):
    def __call__(self, size: int, *, pretrained: bool) -> keras.Model: ...


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry. Sizes are pixels, height = width.

    `block_ends` names the last layer of each block from stem to top, but for the last block, which ends with the
    backbone. All data flows through each of these layers, so the network can be cut behind any of them.

    `imagenet`: digest of the ImageNet weights that `build(pretrained=True)` gets, None if there are none to get.
    `download`: where they come from, a path below `downloads.BASE`; None if not from there.
    `variables`: for networks that TensorFlow checkpoints hold: name in the checkpoint -> variable of the model.
    """

    name: str
    build: Builder
    scaling: ScalingMode
    native_size: int
    minimum_size: int
    block_ends: tuple[str, ...]
    imagenet: str | None = None
    download: str | None = None
    variables: Callable[[keras.Model], Mapping[str, Any]] | None = None

    @property
    def blocks(self) -> int:
        return len(self.block_ends) + 1
