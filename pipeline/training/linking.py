"""Canny's hysteresis: which pixels hang together with a seed.

A chain grows by one pixel a step, and photographs of 224 x 224 take 10 to 120 steps. Sixteen pixels of a row share
an integer, which makes the steps cheap.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

_BITS = 16  # any shift below stays within the positive numbers of int32


def linked(seeds: Any, allowed: Any) -> Any:
    """The pixels of `allowed` that a chain within `allowed`, corners included, links to one that is in `seeds` too.

    All are bool [N, H, W], H and W static.
    """
    width = allowed.shape[2]
    passable = _pack(allowed)

    def grow(reached: Any, _: Any) -> tuple[Any, Any]:
        grown = ops.bitwise_and(_dilate(reached), passable)
        return grown, ops.any(ops.not_equal(grown, reached))

    first = grow(ops.bitwise_and(_pack(seeds), passable), None)
    packed = ops.while_loop(lambda _, changed: changed, grow, first)[0]
    return _unpack(packed, width)


def _dilate(words: Any) -> Any:
    """Each pixel and its eight neighbours, in [N, H, words]. Leaves bits above `_BITS` for the caller to mask."""
    padded = ops.pad(words, [[0, 0], [1, 1], [0, 0]])
    tall = _any((padded[:, :-2], words, padded[:, 2:]))
    beside = ops.pad(tall, [[0, 0], [0, 0], [1, 1]])
    before, after = ops.right_shift(beside[:, :, :-2], _BITS - 1), ops.left_shift(beside[:, :, 2:], _BITS - 1)
    return _any((tall, ops.left_shift(tall, 1), ops.right_shift(tall, 1), before, after))


def _any(words: Sequence[Any]) -> Any:
    return functools.reduce(ops.bitwise_or, words)


def _pack(pixels: Any) -> Any:
    """Bool [N, H, W] to int32 [N, H, words]; a word's lowest bit is its leftmost pixel."""
    height, width = pixels.shape[1:]
    bits = ops.pad(ops.cast(pixels, "float32"), [[0, 0], [0, 0], [0, -width % _BITS]])
    values = (2.0 ** np.arange(_BITS)).astype(np.float32)  # sums below 2^16, exact in float32
    return ops.cast(ops.sum(ops.reshape(bits, (-1, height, -(-width // _BITS), _BITS)) * values, axis=-1), "int32")


def _unpack(words: Any, width: int) -> Any:
    height, count = words.shape[1:]
    bits = ops.bitwise_and(ops.right_shift(words[..., None], np.arange(_BITS, dtype=np.int32)), 1)
    return ops.cast(ops.reshape(bits, (-1, height, count * _BITS)), "bool")[:, :, :width]
