"""Copies that no hash of the whole picture recognises: crops, also mirrored, brightened and re-encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.dataset import crops, images, registration, store
from pipeline.dataset.duplicates import Indices, Thumbnails
from pipeline.dataset.reduced import reduced
from pipeline.dataset.registration import Floats
from pipeline.errors import DataError
from pipeline.progress import track

# Pixels of the shorter side. What is smaller has no details: 321 pairs of 1797 digits of 8x8 agree.
MIN_SIDE = 32
BLOCK = 256  # new pictures searched for at once
CLOSER = 4  # pairs of a new picture that are compared in detail, those that agree best at first
_PAIRS = 96  # registered at once: small enough for the processor's cache
_KEPT = 8192  # pictures kept in memory: 128 MB
_DECODED_SIDE = 256  # as for measuring: a photograph of 500 pixels is halved, which libjpeg does in vector code

Picture = npt.NDArray[np.uint8]


def find(
    thumbnails: Thumbnails, first_new: int, pool: Indices, load: Callable[[int], Picture], least: float, processes: int
) -> Indices:
    """Pairs of pictures of which one shows a part of the other, or all of it: int64 [M, 2], (i, j), i < j, j new.

    Args:
        thumbnails: uint8 [N, 256].
        first_new: index of the first new picture.
        pool: int64, sorted: the pictures that new ones are compared with, themselves included if they are in it.
        load: gives `picture` of an index.
        least: agreement of details (`registration.agreement`) that makes them one picture.
        processes: threads that load pictures. Registration has one: a second would wait for BLAS's own, 28 ms per
            picture instead of 12.
    """
    found = [np.empty((0, 2), np.int64)]
    kept = lru_cache(_KEPT)(load)
    blocks = range(first_new, len(thumbnails), BLOCK)
    with ThreadPoolExecutor(processes) as threads:
        for start in track(blocks, total=len(blocks), what="Looking for crops"):
            block = np.arange(start, min(start + BLOCK, len(thumbnails)))
            candidates = crops.candidates(thumbnails, block, pool, first_new)
            if len(candidates.part):
                found.append(_verified(candidates, first_new, kept, least, threads))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def picture(image_id: str) -> Picture:
    """Luma, uint8 [SIDE, SIDE]: the whole image, squeezed to a square. Raises `DataError` if it is gone or damaged."""
    try:
        luma = reduced(store.get(image_id), _DECODED_SIDE).image().convert("L")
    except images.Unreadable as error:
        raise DataError(
            f"Expected a readable image, {image_id} is not ({error}).",
            fix="restore $REFIT_HOME/images from a backup, or ingest the source again in a new REFIT_HOME",
        ) from None
    return np.asarray(luma.resize((registration.SIDE, registration.SIDE), Image.Resampling.BILINEAR))


def _verified(
    candidates: crops.Candidates,
    first_new: int,
    load: Callable[[int], Picture],
    least: float,
    threads: ThreadPoolExecutor,
) -> Indices:
    numbers, place = np.unique(np.stack([candidates.whole, candidates.part]), return_inverse=True)
    whole, part = place.reshape(2, -1)
    pictures = np.stack(list(threads.map(load, numbers.tolist())))
    small = registration.shrunk(pictures, 2 * registration.COARSE)
    smallest = _turned(registration.shrunk(pictures, registration.COARSE))

    def fit(rows: Indices) -> tuple[Floats, Floats]:
        turned = smallest[candidates.mirrored[rows], part[rows]]
        return registration.fitted(small[whole[rows]], turned, candidates.window[rows])

    def compare(rows: Indices) -> Floats:
        turned = [
            np.flip(pictures[number], crops.MIRRORED[turn])
            for number, turn in zip(part[rows], candidates.mirrored[rows], strict=True)
        ]
        return registration.agreement(
            pictures[whole[rows]].astype(np.float32), np.stack(turned).astype(np.float32), windows[rows]
        )

    windows, first = (np.concatenate(parts) for parts in zip(*map(fit, _pieces(np.arange(len(part)))), strict=True))
    rows = _closest(candidates, first, first_new)
    agreed = np.concatenate([np.empty(0, np.float32), *map(compare, _pieces(rows))])
    rows = rows[agreed >= least]
    return np.stack([candidates.whole[rows], candidates.part[rows]], axis=1)


def _closest(candidates: crops.Candidates, first: Floats, first_new: int) -> Indices:
    """Of every pair the hypothesis that fits best, of every new picture the pairs that do."""
    rows = np.flatnonzero(first >= registration.MIN_COARSE)
    rows = rows[np.lexsort((-first[rows], candidates.part[rows], candidates.whole[rows]))]
    pair = np.stack([candidates.whole[rows], candidates.part[rows]], axis=1)
    rows = rows[np.append(True, (np.diff(pair, axis=0) != 0).any(axis=1))[: len(rows)]]
    new = np.maximum(candidates.whole[rows], candidates.part[rows])
    order = np.lexsort((-first[rows], new))
    rank = np.arange(len(rows)) - np.searchsorted(new[order], new[order])
    return rows[order[rank < CLOSER]]


def _turned(images_: Floats) -> Floats:
    """float32 [4, N, H, W]: as they are and mirrored."""
    return np.stack([np.flip(images_, tuple(axis + 1 for axis in axes)) for axes in crops.MIRRORED])


def _pieces(rows: Indices) -> Sequence[Indices]:
    return [rows[start : start + _PAIRS] for start in range(0, len(rows), _PAIRS)]
