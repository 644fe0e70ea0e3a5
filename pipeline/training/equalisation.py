"""Contrast-limited adaptive histogram equalisation: Zuiderveld, Graphics Gems IV, 1994, pages 474-485.

Luma: float32 [N, H, W], whole numbers 0-255. The details (how the clip limit is rounded, where the clipped pixels go,
where a tile's centre lies) are those of OpenCV's createCLAHE, so results can be compared. One differs: OpenCV adds a
whole row of tiles to a side that divides evenly when the other does not; here each side is padded by what it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

LEVELS = 256


def equalise(luma: Any, *, tiles: int, clip_limit: float) -> Any:
    """Spread the brightness of every part of an image over the whole range. Float32 [N, H, W], 0-255, not rounded.

    Args:
        tiles: on each side; H and W must be static and at least `tiles`.
        clip_limit: how often a level may occur in a tile, as a multiple of an even spread; `LEVELS` clips nothing.
    """
    height, width = luma.shape[1:]
    high, wide = -(-height // tiles), -(-width // tiles)
    padding = [[0, 0], [0, high * tiles - height], [0, wide * tiles - width]]
    mappings = _mappings(ops.pad(luma, padding, mode="reflect"), tiles, high, wide, clip_limit)

    # A tile's mapping holds at its centre; between centres the four around a pixel are mixed.
    top, bottom, low = _between(height, high, tiles)
    left, right, far = _between(width, wide, tiles)
    levels = ops.cast(luma, "int32") + _offsets(luma, tiles)

    def mapped(rows: NDArray[np.int32], columns: NDArray[np.int32]) -> Any:
        return ops.take(mappings, levels + (rows[:, None] * tiles + columns) * LEVELS)

    above = mapped(top, left) * (1 - far) + mapped(top, right) * far
    below = mapped(bottom, left) * (1 - far) + mapped(bottom, right) * far
    return above * (1 - low[:, None]) + below * low[:, None]


def _mappings(luma: Any, tiles: int, high: int, wide: int, clip_limit: float) -> Any:
    """New level of each level of each tile of each image, float32 [N * tiles * tiles * LEVELS], whole numbers."""
    rows, columns = np.arange(tiles * high) // high, np.arange(tiles * wide) // wide
    tile = (rows[:, None] * tiles + columns).astype(np.int32)
    keys = ops.reshape(ops.cast(luma, "int32") + _offsets(luma, tiles) + tile * LEVELS, (-1,))
    # One count over all images at once. Sums of ones are exact in float32, whatever their order.
    histograms = ops.segment_sum(
        ops.ones_like(keys, dtype="float32"), keys, num_segments=ops.shape(luma)[0] * tiles * tiles * LEVELS
    )
    pixels = high * wide
    clipped = _clip(ops.reshape(histograms, (-1, LEVELS)), max(int(clip_limit * pixels / LEVELS), 1))
    scale = np.float32((LEVELS - 1) / pixels)
    return ops.reshape(ops.round(ops.cumsum(clipped, axis=-1) * scale), (-1,))


def _clip(histograms: Any, limit: int) -> Any:
    """Cut counts [T, LEVELS] at `limit`; what is cut off goes to all levels evenly, the rest to every n-th level."""
    kept = ops.minimum(histograms, float(limit))
    excess = ops.sum(histograms - kept, axis=-1, keepdims=True)
    share = ops.floor(excess / LEVELS)
    rest = excess - share * LEVELS
    # Halves keep the quotients off whole numbers, where a device's approximate division could floor to either side.
    step = ops.maximum(ops.floor((LEVELS + 0.5) / ops.maximum(rest, 1.0)), 1.0)
    level = np.arange(LEVELS, dtype=np.float32)
    turn = ops.floor((level + 0.5) / step)
    given = ops.logical_and(ops.equal(turn * step, level), turn < rest)
    return kept + share + ops.cast(given, "float32")


def _between(length: int, size: int, tiles: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """For every pixel of a side: the tile whose centre comes before, the one after, and the weight of the latter."""
    place = np.arange(length, dtype=np.float32) / np.float32(size) - np.float32(0.5)
    before = np.floor(place).astype(np.int32)
    weight = (place - before).astype(np.float32)
    return np.maximum(before, 0), np.minimum(before + 1, tiles - 1), weight


def _offsets(luma: Any, tiles: int) -> Any:
    """Where each image's mappings start, int32 [N, 1, 1]."""
    return ops.reshape(ops.arange(ops.shape(luma)[0], dtype="int32") * (tiles * tiles * LEVELS), (-1, 1, 1))
