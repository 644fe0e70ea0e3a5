"""Which pictures may show a part of which others, by their 16x16 thumbnails: the candidates for `registration`.

Every window of a thumbnail (100 of them: sides of 7 to 10 tenths, in steps of one tenth) is averaged to 6x6 cells in a
standard brightness and contrast. So is every other thumbnail, as it is and mirrored. The correlation of the two, at
the best window, is high if one picture is a crop of the other. Of crops of half the area and more, changed in any other
way too, the original is among the 16 best of 500 photographs, 1000 hand signs or 400 magnetic tiles in 98 of 100 cases.
What a pretrained network sees is no substitute: among the tiles the original is among *its* 32 best in 3 of 4 cases.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.dataset.duplicates import Indices, Thumbnails
from pipeline.dataset.registration import Floats, averaging

BEST = 16  # candidates of one picture, as a part and as a whole each
MIN_CORRELATION = 0.85  # of a candidate: at a window that is one step off, copies have no less
HYPOTHESES = 2  # windows of one candidate that are looked at more closely
MIRRORED = ((), (1,), (0,), (0, 1))  # axes of a picture [height, width]: as it is, left-right, up-down, both
_SIDE = 16  # pixels of a thumbnail
_CELLS = 6
_STEPS = 10
_SHORTEST = 7
_MIN_AREA = 0.42
_TILE = 1024  # thumbnails whose windows are compared at once, with a quarter as many parts: a matrix of 4 MB
_FLOOR = 2.0 * _CELLS  # norm, in grey levels: what is flatter is no evidence


def _windows() -> Floats:
    """float32 [100, 4]: left, right, top, bottom, 0-1."""
    sides = [(a, a + n) for n in range(_SHORTEST, _STEPS + 1) for a in range(_STEPS - n + 1)]
    found = [
        (*across, *down)
        for across, down in itertools.product(sides, sides)
        if (across[1] - across[0]) * (down[1] - down[0]) >= _MIN_AREA * _STEPS**2
    ]
    return np.array(found, np.float32) / _STEPS


WINDOWS = _windows()
_ACROSS = averaging(WINDOWS[:, 0], WINDOWS[:, 1], _CELLS, _SIDE)
_DOWN = averaging(WINDOWS[:, 2], WINDOWS[:, 3], _CELLS, _SIDE)
# float32 [256, 100 * 36]: from a thumbnail to all of its windows' cells.
_TO_WINDOWS = np.einsum("wiy,wjx->yxwij", _DOWN, _ACROSS).reshape(_SIDE**2, -1)
_WHOLE = averaging(np.zeros(1, np.float32), np.ones(1, np.float32), _CELLS, _SIDE)[0]


@dataclass(frozen=True)
class Candidates:
    """C hypotheses: that one picture, mirrored, shows a window of another one."""

    whole: Indices  # int64 [C], the picture that shows more
    part: Indices  # int64 [C]
    mirrored: Indices  # int64 [C], index into MIRRORED: how the part is to be turned
    window: Floats  # float32 [C, 4]


def candidates(thumbnails: Thumbnails, new: Indices, pool: Indices, first_new: int) -> Candidates:
    """For every new picture the best ones of the pool, as what it is a part of and as parts of it.

    Args:
        thumbnails: uint8 [N, 256].
        new: int64, the new pictures that are looked for.
        pool: int64, those that they are compared with. Of two new ones in it either is looked for as a part.
        first_new: index of the first new picture.
    """
    old = pool[pool < first_new]
    pairs = _best(scores(thumbnails[pool], thumbnails[new]), pool, new)
    if len(old):
        found = _best(_transposed(thumbnails, old, new), old, new)
        pairs = np.concatenate([pairs, found[:, ::-1]])
    return _hypotheses(thumbnails, np.unique(pairs, axis=0))


def scores(wholes: Thumbnails, parts: Thumbnails) -> Floats:
    """float32 [parts, wholes]: the highest correlation over all windows and turns."""
    turned = _turned(parts)
    flat = turned.reshape(-1, _CELLS**2)
    result = np.empty((len(parts), len(wholes)), np.float32)
    for start in range(0, len(wholes), _TILE):
        seen = np.ascontiguousarray(_seen(wholes[start : start + _TILE]).transpose(1, 2, 0))
        best, product = np.full((2, len(flat), seen.shape[2]), -1, np.float32)
        for window in seen:
            np.matmul(flat, window, out=product)
            np.maximum(best, product, out=best)
        result[:, start : start + _TILE] = best.reshape(len(parts), len(MIRRORED), -1).max(axis=1)
    return result


def _transposed(thumbnails: Thumbnails, old: Indices, block: Indices) -> Floats:
    """`scores` of old parts and new wholes, [wholes, parts]."""
    return np.concatenate(
        [
            scores(thumbnails[block], thumbnails[old[start : start + _TILE // 4]])
            for start in range(0, len(old), _TILE // 4)
        ]
    ).T


def _best(score: Floats, pool: Indices, block: Indices) -> Indices:
    """The best of the pool for each of the block: int64 [M, 2], (pool, block)."""
    if not len(pool):
        return np.empty((0, 2), np.int64)
    score = np.where(pool[None, :] == block[:, None], -1, score)
    count = min(BEST, len(pool))
    best = np.argpartition(-score, count - 1, axis=1)[:, :count]
    good = np.take_along_axis(score, best, axis=1) >= MIN_CORRELATION
    return np.stack([pool[best[good]], np.repeat(block, good.sum(axis=1))], axis=1)


def _hypotheses(thumbnails: Thumbnails, pairs: Indices) -> Candidates:
    """The best windows and turns of the pairs (whole, part)."""
    rows, turns, windows = ([np.empty(0, np.int64)] for _ in range(3))
    for start in range(0, len(pairs), _TILE):
        block = pairs[start : start + _TILE]
        score = _turned(thumbnails[block[:, 1]]) @ _seen(thumbnails[block[:, 0]]).transpose(0, 2, 1)
        for _ in range(HYPOTHESES):
            best = score.reshape(len(block), -1).argmax(axis=1)
            turn, window = np.divmod(best, len(WINDOWS))
            good = score[np.arange(len(block)), turn, window] >= MIN_CORRELATION
            rows.append(np.flatnonzero(good) + start)
            turns.append(turn[good])
            windows.append(window[good])
            # The next one is none of those beside it, to which the fit would lead anyway.
            beside = np.abs(WINDOWS[None] - WINDOWS[window][:, None]).max(axis=2) < 1.5 / _STEPS
            score[np.arange(len(block)), turn] = np.where(beside, -1, score[np.arange(len(block)), turn])
    row, turn, window = (np.concatenate(parts) for parts in (rows, turns, windows))
    return Candidates(pairs[row, 0], pairs[row, 1], turn, WINDOWS[window])


def _seen(thumbnails: Thumbnails) -> Floats:
    """float32 [N, 100, 36]: every window in standard brightness and contrast, of unit norm."""
    return _unit((thumbnails.astype(np.float32) @ _TO_WINDOWS).reshape(len(thumbnails), len(WINDOWS), -1))


def _turned(thumbnails: Thumbnails) -> Floats:
    """float32 [N, 4, 36]: all of it, in every turn, of unit norm."""
    cells = _WHOLE @ thumbnails.reshape(-1, _SIDE, _SIDE).astype(np.float32) @ _WHOLE.T
    turned = np.stack([np.flip(cells, tuple(axis + 1 for axis in axes)) for axes in MIRRORED], axis=1)
    return _unit(turned.reshape(len(cells), len(MIRRORED), -1))


def _unit(cells: npt.NDArray[np.float32]) -> Floats:
    cells = cells - cells.mean(axis=-1, keepdims=True)
    result: Floats = cells / np.maximum(np.linalg.norm(cells, axis=-1, keepdims=True), _FLOOR)
    return result
