"""Near duplicates: one picture stored twice (re-encoded, resized), found without comparing all with all.

Two images are near duplicates when their 64-bit dHashes differ in at most `bits` bits *and* their 16x16
thumbnails differ by at most `error` (root mean square, 0-1). The hash alone is not enough: small or flat
images (handwritten digits, surfaces) share hashes without being the same picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

SIDE = 1024  # hashes compared with as many others at once: 1024 x 1024 differences are 8 MB
BLOCK = 16384  # thumbnails compared at once: 16 MB
_POPCOUNT = np.array([value.bit_count() for value in range(256)], np.uint8)

Indices = npt.NDArray[np.int64]


def pairs(hashes: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8], *, bits: int, error: float) -> Indices:
    """All near-duplicate pairs.

    Args:
        hashes: uint64 [N].
        thumbnails: uint8 [N, 256], 0-255.

    Returns:
        int64 [M, 2], pairs (i, j) with i < j, sorted, each once.

    Hashes at most `bits` apart agree in at least one of `bits + 1` bands (pigeonhole principle; Manku et al.,
    "Detecting near-duplicates for web crawling", 2007), so only images that share a band are compared.
    """
    thumbs = thumbnails.astype(np.float32) / 255.0
    found = [np.empty((0, 2), np.int64)]
    for left, right in _candidates(hashes, bands=bits + 1):
        close = _POPCOUNT[(hashes[left] ^ hashes[right]).view(np.uint8).reshape(-1, 8)].sum(axis=1) <= bits
        left, right = left[close], right[close]
        for start in range(0, len(left), BLOCK):
            these = slice(start, start + BLOCK)
            same = np.sqrt(np.mean((thumbs[left[these]] - thumbs[right[these]]) ** 2, axis=1)) <= error
            found.append(np.stack([left[these][same], right[these][same]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _candidates(hashes: npt.NDArray[np.uint64], *, bands: int) -> Iterator[tuple[Indices, Indices]]:
    """Index pairs (i < j) that agree in a band, in blocks of bounded size."""
    edges = np.linspace(0, 64, bands + 1).astype(int)
    for low, high in itertools.pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order], prepend=band[order][:1] + np.uint64(1)))
        for members in np.split(order, starts)[1:]:
            for row in range(0, len(members), SIDE):
                for column in range(row, len(members), SIDE):
                    left, right = np.meshgrid(members[row : row + SIDE], members[column : column + SIDE], indexing="ij")
                    keep = left < right if row == column else np.ones_like(left, bool)
                    yield np.minimum(left[keep], right[keep]), np.maximum(left[keep], right[keep])


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
