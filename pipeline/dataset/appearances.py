"""Thumbnails in one brightness, contrast and turn, in which mirrored and brightened copies equal their original."""

from __future__ import annotations

import numpy as np

from pipeline.dataset.duplicates import Appearances, Thumbnails
from pipeline.dataset.registration import averaging

CONTRAST = 64  # grey levels that standard deviations are brought to. With 40, 5 pairs of 8x8 digits look the same
# Grey levels; of a thumbnail with less, rounding and compression are a tenth of the contrast and would be amplified.
MIN_CONTRAST = 5.0
BLOCK = 1 << 15  # thumbnails standardised at once: 32 MB
_SIDE = 16
_COLUMNS = averaging(np.zeros(1, np.float32), np.ones(1, np.float32), 9, _SIDE)[0].T  # 16 to the 9 of the hash
# The hash's bits in an order in which each quarter of them is from all over the picture: neighbours are alike, and an
# index over bands of them would tell few pictures apart (a million took minutes).
_SCATTERED = np.argsort(np.add.outer(np.arange(8), np.arange(8)).ravel() % 4, kind="stable")
_HALF = np.where(np.arange(_SIDE) < _SIDE // 2, -1, 1) / _SIDE**2


def standardised(thumbnails: Thumbnails, error: float) -> Appearances:
    """Every image in standard brightness and contrast, turned so that its right and lower halves are the brighter ones.

    Args:
        thumbnails: uint8 [N, 256].
        error: the largest difference of near duplicates, 0-1. An image whose halves differ by no more has an appearance
            for either turn, so that no pair of near duplicates is missed. A flat image has none: it is no evidence.
    """
    images, found = [np.empty(0, np.int64)], [np.empty((0, _SIDE, _SIDE), np.uint8)]
    for start in range(0, len(thumbnails), BLOCK):
        block = thumbnails[start : start + BLOCK].astype(np.float32)
        contrast = block.std(axis=1)
        kept = np.flatnonzero(contrast >= MIN_CONTRAST)
        block = (block[kept] - block[kept].mean(axis=1, keepdims=True)) * (CONTRAST / contrast[kept, None])
        seen = np.clip(np.rint(block + 128), 0, 255).astype(np.uint8).reshape(-1, _SIDE, _SIDE)
        image = kept + start
        for axis, half in ((2, _HALF), (1, _HALF[:, None])):
            lean = (seen * half).sum(axis=(1, 2)) / 255
            mirrored = np.flatnonzero(lean < error)
            both = np.flatnonzero(np.abs(lean) <= error)
            seen, image = (
                np.concatenate([np.delete(seen, mirrored, 0), np.flip(seen[mirrored], axis), seen[both]]),
                np.concatenate([np.delete(image, mirrored), image[mirrored], image[both]]),
            )
        order = np.argsort(image, kind="stable")
        images.append(image[order])
        found.append(seen[order])
    seen = np.concatenate(found)
    return Appearances(np.concatenate(images), _hashes(seen), seen.reshape(-1, _SIDE**2))


def _hashes(seen: Thumbnails) -> np.ndarray:
    """dHash as in `profiling.features`, of the thumbnails, its bits in another order: uint64 [M]."""
    result = [np.empty(0, np.uint64)]
    for start in range(0, len(seen), BLOCK):
        small = seen[start : start + BLOCK].reshape(-1, 8, 2, _SIDE).mean(axis=2, dtype=np.float32) @ _COLUMNS
        brighter = (small[:, :, 1:] > small[:, :, :-1]).reshape(-1, 64)
        bits = np.packbits(np.ascontiguousarray(brighter[:, _SCATTERED]), axis=1)
        result.append(bits.view(">u8").ravel().astype(np.uint64))
    return np.concatenate(result)
