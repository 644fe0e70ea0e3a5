"""Whether one picture is another one cropped, mirrored, brightened or re-encoded: registration, pixel by pixel.

A copy is laid over the part of the other picture that it may show, its window, which is moved and stretched until the
two agree best (Gauss-Newton on four edges, gain and offset: Lucas and Kanade 1981; Baker and Matthews, "Lucas-Kanade
20 years on", 2004). What decides is how well *details* then agree. Look-alikes (another hand before the same wall,
another tile of the same kind) agree in light and shade, and not in their details.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

SIDE = 128  # pixels of the squares that pictures are compared as: a window's proportions do not matter then
MIN_LENGTH = 0.5  # of a window's sides: a crop of half the area has 0.71 if its proportions are kept
COARSE, MIDDLE, FINE = 16, 32, 64  # pixels of the grids that a window is fitted on, one after the other
COARSE_STEPS, MIDDLE_STEPS, FINE_STEPS = (2, 3), 4, 2
# Correlations without which there is no going on. Copies have 0.95 and more, 0.9 where much light is clipped.
MIN_FIRST, MIN_COARSE, MIN_MIDDLE, MIN_DETAIL = 0.8, 0.85, 0.85, 0.6
MIDDLE_DETAIL, FINE_DETAIL = 5, 11  # pixels squared: what differs from the mean over so many is detail
BLOCKS = 8  # per side: details are compared in each block of the finest grid by itself, too ...
MIN_BLOCKS = 6  # ... of which so many must have any; what is flatter is no evidence
FLAT = 2.0  # grey levels of detail (root mean square); compression at quality 30 makes about one by itself
WORST = 0.1  # share of the blocks that may agree less
CLIPPED = 4.0  # grey levels from black or white that count as clipped
_LONGEST_STEP = 0.06  # of an edge, in sides of the picture

Floats = npt.NDArray[np.float32]


def fitted(pictures: Floats, copies: Floats, windows: Floats) -> tuple[Floats, Floats]:
    """A first fit: windows float32 [P, 4] and the correlations there, float32 [P].

    Args:
        pictures: luma, float32 [P, 2 * COARSE, 2 * COARSE], 0-255.
        copies: the same [P, COARSE, COARSE], turned as they are to be compared.
        windows: float32 [P, 4], where in the picture its copy may lie: left, right, top, bottom, 0-1.
    """
    windows = windows.copy()
    rows = np.arange(len(windows))
    result = np.empty(len(windows), np.float32)
    for steps, least in zip(COARSE_STEPS, (MIN_FIRST, MIN_COARSE), strict=True):
        windows[rows] = _moved(pictures[rows], copies[rows], windows[rows], steps)
        result[rows] = correlation(*levelled(cut(pictures[rows], windows[rows], COARSE), copies[rows]))
        rows = rows[result[rows] >= least]
    return windows, result


def agreement(pictures: Floats, copies: Floats, windows: Floats) -> Floats:
    """How well the details of each copy agree with those in the window, float32 [P], -1 to 1; -1 if not alike at all.

    The mean of their correlation all over and of the one that nine blocks of ten have: a strong edge that two
    look-alikes share decides the first, and a few blocks that differ the second.

    Args:
        pictures, copies: luma, float32 [P, SIDE, SIDE], 0-255; the copies turned as they are to be compared.
        windows: from `fitted`.
    """
    result = np.full(len(pictures), -1, np.float32)
    small, half = shrunk(copies, MIDDLE), shrunk(pictures, 2 * MIDDLE)
    windows = _moved(half, small, windows, MIDDLE_STEPS)
    seen, shown = levelled(cut(half, windows, MIDDLE), small)
    alike = correlation(detail(seen, MIDDLE_DETAIL), detail(shown, MIDDLE_DETAIL)) >= MIN_DETAIL
    kept = np.flatnonzero(alike & (correlation(seen, shown) >= MIN_MIDDLE))
    if not len(kept):
        return result
    small = shrunk(copies[kept], FINE)
    windows = _moved(pictures[kept], small, windows[kept], FINE_STEPS)
    seen, shown = levelled(cut(pictures[kept], windows, FINE), small)
    seen, shown = detail(seen, FINE_DETAIL), detail(shown, FINE_DETAIL)
    result[kept] = (correlation(seen, shown) + _in_blocks(seen, shown)) / 2
    return result


def shrunk(images: Floats | npt.NDArray[np.uint8], side: int) -> Floats:
    """float32 [P, side, side]: means of squares of pixels, halved until there are `side` of them."""
    result = images.astype(np.float32, copy=False)
    while result.shape[1] > side:
        result = result[:, ::2] + result[:, 1::2]
        result = (result[:, :, ::2] + result[:, :, 1::2]) * np.float32(0.25)
    return result


def cut(pictures: Floats, windows: Floats, side: int) -> Floats:
    """The windows of the pictures, averaged to float32 [P, side, side]."""
    source = pictures.shape[1]
    across = averaging(windows[:, 0], windows[:, 1], side, source)
    down = averaging(windows[:, 2], windows[:, 3], side, source)
    result: Floats = down @ pictures @ across.transpose(0, 2, 1)
    return result


def averaging(start: Floats, end: Floats, cells: int, source: int) -> Floats:
    """float32 [P, cells, source]: matrices that average `source` values over equal cells between start and end, 0-1."""
    edges = (start[:, None] + (end - start)[:, None] * np.linspace(0, 1, cells + 1, dtype=np.float32)) * source
    left = np.arange(source, dtype=np.float32)
    covered = np.minimum(edges[:, 1:, None], left + 1) - np.maximum(edges[:, :-1, None], left)
    np.maximum(covered, 0, out=covered)
    result: Floats = covered / np.maximum(covered.sum(axis=2, keepdims=True), 1e-6)
    return result


def levelled(seen: Floats, shown: Floats) -> tuple[Floats, Floats]:
    """Both in the second one's brightness and contrast, clipped to what either could show."""
    weight = _unclipped(seen, shown)
    total = weight.sum(axis=(1, 2), keepdims=True)
    mean_seen, mean_shown = ((weight * image).sum(axis=(1, 2), keepdims=True) / total for image in (seen, shown))
    around = weight * (seen - mean_seen)
    gain = (around * (shown - mean_shown)).sum(axis=(1, 2), keepdims=True)
    gain = np.clip(gain / ((around * (seen - mean_seen)).sum(axis=(1, 2), keepdims=True) + 1e-3), 0.2, 5)
    offset = mean_shown - gain * mean_seen
    low, high = np.maximum(offset, 0), np.minimum(offset + 255 * gain, 255)
    return np.clip(gain * seen + offset, low, high), np.clip(shown, low, high)


def detail(images: Floats, width: int) -> Floats:
    """What is left of float32 [P, H, W] without its mean over `width` squared."""
    result: Floats = images - uniform_filter(images, size=(1, width, width), mode="reflect")
    return result


def correlation(one: Floats, other: Floats) -> Floats:
    """float32 [P], -1 to 1; 0 where either is flat."""
    one, other = (image - image.mean(axis=(1, 2), keepdims=True) for image in (one, other))
    power = np.einsum("pyx,pyx->p", one, one) * np.einsum("pyx,pyx->p", other, other)
    result: Floats = np.einsum("pyx,pyx->p", one, other) / (np.sqrt(power) + 1e-3)
    return result


def _moved(pictures: Floats, copies: Floats, windows: Floats, steps: int) -> Floats:
    """The windows, moved to where the pictures agree with the copies better."""
    side = copies.shape[1]
    position = ((np.arange(side) + 0.5) / side).astype(np.float32)
    for _ in range(steps):
        seen = cut(pictures, windows, side)
        slope_y, slope_x = np.gradient(seen, axis=(1, 2))
        slope_x *= (side / (windows[:, 1] - windows[:, 0]))[:, None, None]
        slope_y *= (side / (windows[:, 3] - windows[:, 2]))[:, None, None]
        design = np.empty((len(seen), 6, side, side), np.float32)
        design[:, 0], design[:, 1] = seen, 1
        np.multiply(slope_x, position, out=design[:, 3])
        np.subtract(slope_x, design[:, 3], out=design[:, 2])
        np.multiply(slope_y, position[:, None], out=design[:, 5])
        np.subtract(slope_y, design[:, 5], out=design[:, 4])
        weighted = (design * _unclipped(seen, copies)[:, None]).reshape(len(seen), 6, side**2)
        normal = (weighted @ design.reshape(len(seen), 6, side**2).transpose(0, 2, 1)).astype(np.float64)
        target = (weighted @ copies.reshape(len(seen), side**2, 1)).astype(np.float64)[:, :, 0]
        scale = np.sqrt(np.maximum(np.einsum("pii->pi", normal), 1e-6))
        normal = normal / (scale[:, :, None] * scale[:, None, :]) + 1e-4 * np.eye(6)
        solved = np.linalg.solve(normal, (target / scale)[:, :, None])[:, :, 0] / scale
        step = solved[:, 2:] / np.where(np.abs(solved[:, :1]) < 0.1, 0.1, solved[:, :1])
        windows = _valid(windows + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP).astype(np.float32))
    return windows


def _valid(windows: Floats) -> Floats:
    for low, high in ((0, 1), (2, 3)):
        windows[:, low] = np.clip(windows[:, low], 0, 1 - MIN_LENGTH)
        windows[:, high] = np.clip(windows[:, high], windows[:, low] + MIN_LENGTH, 1)
    return windows


def _unclipped(seen: Floats, shown: Floats) -> Floats:
    """1 where neither is black or white, 0 elsewhere; 1 everywhere if that leaves too little."""
    inside = (np.abs(seen - 127.5) < 127.5 - CLIPPED) & (np.abs(shown - 127.5) < 127.5 - CLIPPED)
    inside[inside.mean(axis=(1, 2)) < 0.2] = True
    return inside.astype(np.float32)


def _in_blocks(seen: Floats, shown: Floats) -> Floats:
    """The correlation that all but the `WORST` blocks with details reach; -1 if there are too few of them."""
    seen, shown = (_blocks(image) for image in (seen, shown))
    power_seen, power_shown = ((image**2).mean(axis=2) for image in (seen, shown))
    each = (seen * shown).mean(axis=2) / np.sqrt(power_seen * power_shown + 1e-6)
    has_detail = np.maximum(power_seen, power_shown) >= FLAT**2
    each = np.sort(np.where(has_detail, each, np.inf), axis=1)
    count = has_detail.sum(axis=1)
    place = np.minimum((WORST * count).astype(np.int64), BLOCKS**2 - 1)
    reached = np.take_along_axis(each, place[:, None], axis=1)[:, 0]
    return np.where(count >= MIN_BLOCKS, reached, -1).astype(np.float32)


def _blocks(images: Floats) -> Floats:
    """float32 [P, BLOCKS squared, pixels of a block]."""
    size = images.shape[1] // BLOCKS
    cut_up = images.reshape(len(images), BLOCKS, size, BLOCKS, size).transpose(0, 1, 3, 2, 4)
    return cut_up.reshape(len(images), BLOCKS**2, size**2)
