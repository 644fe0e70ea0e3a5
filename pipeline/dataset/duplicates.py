"""Near duplicates: one picture stored twice in the same frame, found without comparing all with all.

Two images are near duplicates when their 64-bit difference hashes differ in at most `bits` bits *and* their 16x16
thumbnails differ by at most `error` (root mean square, 0-1). The hash alone is not enough: small or flat
images (handwritten digits, surfaces) share hashes without being the same picture.

An image may have several appearances, such as its mirror image; it is a near duplicate if any of them is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL_BYTES = 256  # 16 x 16 luma
CANDIDATES = 1 << 22  # compared at once: four arrays of 32 MB
BLOCK = 1 << 14  # thumbnails compared at once: 16 MB
FIRST_LOOK = 8  # neighbours in the order of brightness that are compared before the others

_WAVE = np.cos(2 * np.pi * (np.arange(16) + 0.5) / 16)
# Brightness, and how much brighter the border is than the centre: of unit root mean square, over all of a thumbnail.
_PATTERN = (1 + _WAVE[:, None] + _WAVE).ravel() / np.sqrt(2) / THUMBNAIL_BYTES / 255

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Thumbnails = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Appearances:
    """M appearances of N images, those of an image one after the other, the images in their order."""

    image: Indices  # int64 [M], 0 to N - 1
    hashes: Hashes  # [M]
    thumbnails: Thumbnails  # [M, 256], 0-255


def as_stored(hashes: Hashes, thumbnails: Thumbnails) -> Appearances:
    """Every image as it is: re-encoded and resized copies are near."""
    return Appearances(np.arange(len(hashes)), hashes, thumbnails)


def links(seen: Appearances, clusters: Indices, *, first_new: int, bits: int, error: float) -> Indices:
    """Enough near-duplicate pairs to tell how every new image hangs together with all others.

    Between two new images a pair is left out if others connect them already, between a new and an old image if the
    new one has a pair with that old one's cluster: ten thousand frames of a still scene have 50 million pairs, and
    are connected by ten thousand.

    Args:
        seen: of all images, the old ones first.
        clusters: int64 [first_new], equal for old images that are already known to be one cluster.
        first_new: index of the first new image.

    Returns:
        int64 [M, 2], pairs of images (i, j) with i < j and j new, sorted, each once.

    Hashes at most `bits` apart agree in at least one of `bits + 1` bands (pigeonhole principle; Manku et al.,
    "Detecting near-duplicates for web crawling", 2007), and the projections of two thumbnails on a pattern differ by
    no more than they do themselves (Cauchy-Schwarz inequality). So only images that share a band and are next to each
    other in their projections are compared.
    """
    search = _Search(seen, bits, error)
    first = int(np.searchsorted(seen.image, first_new))
    old, new = np.arange(first), np.arange(first, len(seen.image))
    return np.unique(np.concatenate([_among_new(search, new), _with_old(search, old, new, clusters)]), axis=0)


def components(count: int, pairs: Indices) -> Indices:
    """int64 [count]: equal for what `pairs` (int64 [M, 2]) connect."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


class _Search:
    """The images and what makes two of them near duplicates."""

    def __init__(self, seen: Appearances, bits: int, error: float) -> None:
        self.image, self._hashes, self._thumbnails = seen.image, seen.hashes, seen.thumbnails
        self._bits, self._error = bits, error
        blocks = range(0, len(self.image), BLOCK)
        self._projection = np.concatenate(
            [np.empty(0), *(self._thumbnails[start : start + BLOCK] @ _PATTERN for start in blocks)]
        )
        self.window = error + 1e-5  # of the keys of near duplicates; the rest is for rounding

    def all_keys(self) -> Iterator[npt.NDArray[np.float64]]:
        """For every band a key per image: near duplicates are at most `window` apart in one of them."""
        edges = np.linspace(0, 64, self._bits + 2).astype(int)
        for low, high in itertools.pairwise(edges):
            band = (self._hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
            # Projections are -2 to 2 and error at most 1, so keys of different bands are farther apart than the window.
            yield np.unique(band, return_inverse=True)[1] * 6.0 + self._projection

    def near(self, pairs: Indices) -> Indices:
        """Those of `pairs` that are near duplicates."""
        close = pairs[_popcount(self._hashes[pairs[:, 0]] ^ self._hashes[pairs[:, 1]]) <= self._bits]
        same = [np.empty(0, bool)]
        for start in range(0, len(close), BLOCK):
            one, other = self._thumbnails[close[start : start + BLOCK].T].astype(np.float32) / 255
            same.append(np.sqrt(np.mean((one - other) ** 2, axis=1)) <= self._error)
        return close[np.concatenate(same)]


def _popcount(words: Hashes) -> Hashes:
    """Number of ones in each. Warren, Hacker's Delight, 2nd ed., section 5-1; NumPy has its own only since 2.0."""
    pairs = words - (words >> np.uint64(1) & np.uint64(0x5555555555555555))
    nibbles = (pairs & np.uint64(0x3333333333333333)) + (pairs >> np.uint64(2) & np.uint64(0x3333333333333333))
    octets = nibbles + (nibbles >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return octets * np.uint64(0x0101010101010101) >> np.uint64(56)


def _among_new(search: _Search, new: Indices) -> Indices:
    """Pairs that connect the new images: none of what earlier ones have connected already, step by step."""
    if not len(new):
        return np.empty((0, 2), np.int64)
    first = search.image[new[0]]
    image = search.image[new] - first
    count = int(image[-1]) + 1
    found, component = np.empty((0, 2), np.int64), np.arange(count)
    for keys in search.all_keys():
        order = np.argsort(keys[new], kind="stable")
        key, position = keys[new][order], np.arange(len(new))
        end = np.searchsorted(key, key + search.window, side="right")
        # In a dense bucket the nearest connect nearly all; after them whole runs of what is connected are skipped.
        for step in range(1, FIRST_LOOK + 1):
            start, last = position + step, end
            if step < FIRST_LOOK:
                last = np.minimum(end, start + 1)
            else:
                start = np.maximum(start, _run_ends(component[image[order]]))
            for left, right in _spans(start, last):
                pairs = np.stack([order[left], order[right]], axis=1)
                connected = component[image[pairs]]
                near = image[search.near(new[pairs[connected[:, 0] != connected[:, 1]]]) - new[0]]
                if len(near):
                    found = np.concatenate([found, _one_of_each(near, np.sort(component[near], axis=1))])
                    component = components(count, found)
    return np.sort(found, axis=1) + first


def _with_old(search: _Search, old: Indices, new: Indices, clusters: Indices) -> Indices:
    """Pairs of an old and a new image: one for each new image and cluster."""
    found, known = np.empty((0, 2), np.int64), np.empty(0, np.int64)
    count = clusters.max(initial=0) + 1
    cluster = clusters[search.image[old]]
    for keys in search.all_keys():
        order = np.argsort(keys[old], kind="stable")
        key, wanted = keys[old][order], keys[new]
        start = np.searchsorted(key, wanted - search.window, side="left")
        end = np.searchsorted(key, wanted + search.window, side="right")
        middle = np.clip(np.searchsorted(key, wanted), start, end)
        near_start, near_end = np.maximum(start, middle - FIRST_LOOK), np.minimum(end, middle + FIRST_LOOK)
        # As above: the nearest first, then whatever is not yet known, before and behind them.
        for first, last in ((near_start, near_end), (start, near_start), (near_end, end)):
            last = np.where(_settled(cluster[order], first, last, search.image[new] * count, known), first, last)
            for left, right in _spans(first, last):
                pairs = np.stack([old[order[right]], new[left]], axis=1)
                contact = search.image[pairs[:, 1]] * count + cluster[pairs[:, 0]]
                near = search.image[search.near(pairs[~_contains(known, contact)])]
                contact = near[:, 1] * count + clusters[near[:, 0]]
                found = np.concatenate([found, _one_of_each(near, contact)])
                known = np.union1d(known, contact)
    return found


def _settled(cluster: Indices, start: Indices, end: Indices, contact: Indices, known: Indices) -> npt.NDArray[np.bool_]:
    """Which spans hold a single cluster, and one that is known to be in contact."""
    if not len(cluster):
        return np.ones(len(start), bool)
    first = np.minimum(start, len(cluster) - 1)
    return (_run_ends(cluster)[first] >= end) & _contains(known, contact + cluster[first])


def _contains(known: Indices, values: Indices) -> npt.NDArray[np.bool_]:
    """Whether each value is in `known`, which is sorted. `np.isin` would sort the values, which are many."""
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values


def _one_of_each(pairs: Indices, kind: Indices) -> Indices:
    return pairs[np.sort(np.unique(kind, axis=0, return_index=True)[1])]


def _run_ends(values: Indices) -> Indices:
    """For every position, where the run of equal values that it lies in ends."""
    ends = np.append(np.flatnonzero(np.diff(values)) + 1, len(values))
    return ends[np.searchsorted(ends, np.arange(len(values)), side="right")]


def _spans(start: Indices, end: Indices) -> Iterator[tuple[Indices, Indices]]:
    """All (i, j) with start[i] <= j < end[i], in blocks of about `CANDIDATES`."""
    counts = np.maximum(end - start, 0)
    if not counts.any():
        return
    totals = np.cumsum(counts)
    edges = [0, *np.searchsorted(totals, np.arange(CANDIDATES, totals[-1], CANDIDATES)), len(start)]
    for low, high in itertools.pairwise(edges):
        block = counts[low:high]
        left = np.repeat(np.arange(low, high), block)
        within = np.arange(len(left)) - np.repeat(np.cumsum(block) - block, block)
        yield left, within + np.repeat(start[low:high], block)


class Groups:
    """Union-find over names: everything that `join` has connected has one representative, the least name."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def representative(self, name: str) -> str:
        root = name
        while self._parent.setdefault(root, root) != root:
            root = self._parent[root]
        while self._parent[name] != root:  # path compression
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, one: str, other: str) -> None:
        low, high = sorted((self.representative(one), self.representative(other)))
        self._parent[high] = low
