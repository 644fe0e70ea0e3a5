"""Where the brightness of an image changes, and thin lines along it.

Luma: float32 [N, H, W], whole numbers 0-255. Gradients count in units of 1/6: whole numbers whose squares and their
sums stay below 2^24, so float32 holds all of them exactly and every backend and device finds the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from pipeline.training import linking

UNIT = 6  # of a grey level; a full step from black to white has the gradient 255 * UNIT

# Sobel's derivative (-1 0 1) and smoothing (1 2 1), each of them smoothed once more by (1 2 1).
_DERIVATIVE = (-1, -2, 0, 2, 1)
_SMOOTHING = (1, 4, 6, 4, 1)
_WEIGHT = 3 * sum(_SMOOTHING)  # what the two together make of a step of 1
_EIGHTH_OF_A_TURN = math.tan(math.pi / 8)

_Step = tuple[int, int]  # down, right


def gradient(luma: Any) -> tuple[Any, Any]:
    """Sobel's gradient (x, y) of luma smoothed by a 3 x 3 binomial, each float32 [N, H, W], whole UNITs.

    Beyond the border the outermost pixels repeat.
    """
    padded = luma
    for _ in range(len(_SMOOTHING) // 2):
        padded = ops.pad(padded, [[0, 0], [1, 1], [1, 1]], mode="symmetric")
    across = _correlate(_correlate(padded, _SMOOTHING, axis=1), _DERIVATIVE, axis=2)
    down = _correlate(_correlate(padded, _DERIVATIVE, axis=1), _SMOOTHING, axis=2)
    return ops.round(across / (_WEIGHT / UNIT)), ops.round(down / (_WEIGHT / UNIT))


def square(across: Any, down: Any) -> Any:
    """The squared length of a gradient, float32 [N, H, W], whole UNITs squared."""
    return across * across + down * down


def lines(across: Any, down: Any, *, low: float, high: float) -> Any:
    """Which pixels lie on an outline, bool [N, H, W]: Canny, A Computational Approach to Edge Detection, 1986.

    A pixel stays where the gradient is longest along its own direction, out of four, and at least `low` (grey
    levels), if a chain of such pixels, corners included, links it to one of at least `high`. Of two equal neighbours
    the one on the left or above stays.
    """
    length = square(across, down)
    ridge = _is_ridge(length, across, down)
    weak = ops.logical_and(ridge, length >= (low * UNIT) ** 2)
    strong = ops.logical_and(ridge, length >= (high * UNIT) ** 2)
    return linking.linked(strong, weak)


def _is_ridge(length: Any, across: Any, down: Any) -> Any:
    around = _neighbours(length)
    wide, tall = ops.abs(across), ops.abs(down)
    level = tall < _EIGHTH_OF_A_TURN * wide
    steep = wide < _EIGHTH_OF_A_TURN * tall
    falls = across * down > 0  # along the diagonal from top left to bottom right

    def along(beside: _Step, above: _Step, falling: _Step, rising: _Step) -> Any:
        diagonal = ops.where(falls, around[falling], around[rising])
        return ops.where(level, around[beside], ops.where(steep, around[above], diagonal))

    before = along((0, -1), (-1, 0), (-1, -1), (-1, 1))
    after = along((0, 1), (1, 0), (1, 1), (1, -1))
    return ops.logical_and(length > before, length >= after)


def _neighbours(values: Any) -> dict[_Step, Any]:
    """The values a step away; 0 beyond the border."""
    height, width = values.shape[1:]
    padded = ops.pad(values, [[0, 0], [1, 1], [1, 1]])
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return {(y, x): padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in steps}


def _correlate(values: Any, weights: Sequence[int], axis: int) -> Any:
    """Weighted sums of neighbours along an axis (1 or 2), which gets shorter by the weights less one."""
    length = values.shape[axis] - len(weights) + 1
    moved = [slice(start, start + length) for start in range(len(weights))]
    windows = [values[:, place] if axis == 1 else values[:, :, place] for place in moved]
    return sum(weight * window for weight, window in zip(weights, windows, strict=True) if weight)
