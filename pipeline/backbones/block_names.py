"""Names of the last layers of blocks in keras.applications, by family; see `Backbone.block_ends`."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from string import ascii_lowercase


def resnet(*depths: int) -> tuple[str, ...]:
    """`depths`: blocks of each of the four stages."""
    blocks = [f"conv{stage}_block{i}_out" for stage, depth in enumerate(depths, 2) for i in range(1, depth + 1)]
    return ("pool1_pool", *blocks[:-1])


def efficientnet(depth: float, repeats: Sequence[int] = (1, 2, 2, 3, 3, 4, 1)) -> tuple[str, ...]:
    """`depth` multiplies how often each stage's block is repeated in B0. The last block is the convolution on top."""
    return ("stem_activation", *_stages(repeats, depth, "project_bn"))


def efficientnet_v2_base(depth: float) -> tuple[str, ...]:
    ends = _stages((1, 2, 2, 3, 5, 8), depth, "project_bn")
    return ("stem_activation", "block1a_project_activation", *ends[1:])


def efficientnet_v2(*repeats: int) -> tuple[str, ...]:
    """S, M and L, whose first block already has an addition."""
    return ("stem_activation", "block1a_add", *_stages(repeats, 1, "project_bn")[1:])


def _stages(repeats: Sequence[int], depth: float, first: str) -> list[str]:
    """Blocks but the first of a stage are residual, so that they end in an addition."""
    return [
        f"block{stage}{ascii_lowercase[i]}_{'add' if i else first}"
        for stage, repeat in enumerate(repeats, 1)
        for i in range(ceil(repeat * depth))
    ]


def mobilenet_v2() -> tuple[str, ...]:
    strided = {1, 3, 6, 10, 13, 16}  # no addition at their end
    blocks = (f"block_{i}_{'project_BN' if i in strided else 'add'}" for i in range(1, 17))
    return ("Conv1_relu", "expanded_conv_project_BN", *blocks)


def mobilenet_v3(first: str, last: int, changing: set[int]) -> tuple[str, ...]:
    """`changing`: blocks that change size or channels, so that they end without an addition."""
    blocks = (f"expanded_conv_{i}_{'project_bn' if i in changing else 'add'}" for i in range(1, last + 1))
    return ("activation", f"expanded_conv_{first}", *blocks)


def inception_resnet_v2() -> tuple[str, ...]:
    return (
        "mixed_5b",
        *(f"block35_{i}_ac" for i in range(1, 11)),
        "mixed_6a",
        *(f"block17_{i}_ac" for i in range(1, 21)),
        "mixed_7a",
        *(f"block8_{i}_ac" for i in range(1, 10)),
    )


def convnext(size: str) -> tuple[str, ...]:
    """The additions inside of a stage are no named layers, so a block is a stage here."""
    return (f"convnext_{size}_stem", *(f"convnext_{size}_downsampling_block_{i}" for i in range(3)))


def xception() -> tuple[str, ...]:
    """Blocks 2 to 13 end in additions that Keras numbers."""
    return ("block1_conv2_act", "add", *(f"add_{i}" for i in range(1, 12)))
