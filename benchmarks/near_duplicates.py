"""How long the index takes to find the near duplicates of many images.

    python benchmarks/near_duplicates.py [IMAGES]

Prints one table, for a million images unless told otherwise: random ones of which one in a hundred is a planted copy,
such as cluster around 2000 scenes, a batch of 10 000 beside all others, and a still scene, where all are copies.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.dataset.appearances import standardised
from pipeline.dataset.duplicates import Appearances, Indices, as_stored, components, links
from pipeline.settings import code_root, load

SCENES = 2000
BATCH = 10_000
FLIPS = 6  # bits by which an image's hash differs from its scene's, on average


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    options = load(code_root() / "params.yaml").profile
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, count, np.uint64)
    thumbnails = rng.integers(0, 256, (count, 256), np.uint8)
    planted = count // 100
    originals, copies = np.arange(planted), np.arange(count - planted, count)
    hashes[copies] = hashes[originals] ^ (np.uint64(1) << rng.integers(0, 64, planted).astype(np.uint64))
    noise = rng.integers(-2, 3, (planted, 256))
    thumbnails[copies] = np.clip(thumbnails[originals] + noise, 0, 255).astype(np.uint8)
    scenes = rng.integers(0, 2**64, SCENES, np.uint64)[rng.integers(0, SCENES, count)]
    for _ in range(FLIPS):
        scenes ^= np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
    still = rng.integers(100, 104, (count // 10, 256)).astype(np.uint8)

    table = Table("images", "new", "seconds", "links", "clusters of several")

    def row(seen: Appearances, new: int, what: str) -> None:
        images = int(seen.image[-1]) + 1
        old = images - new
        begun = time.perf_counter()
        found = links(
            seen,
            np.arange(old),
            first_new=old,
            bits=options.near_duplicate_bits,
            error=options.near_duplicate_error,
        )
        seconds = time.perf_counter() - begun
        table.add_row(f"{images} {what}", str(new), f"{seconds:.1f}", str(len(found)), str(_several(found)))

    row(as_stored(hashes, thumbnails), count, "random, 1 % copies")
    row(as_stored(hashes, thumbnails), BATCH, "random, 1 % copies")
    row(as_stored(scenes, thumbnails), count, f"around {SCENES} scenes")
    row(as_stored(np.zeros(len(still), np.uint64), still), len(still), "of one still scene")
    # Light and shade as in pictures: of noise, every half is as bright as the other, and all have four appearances.
    coarse = rng.integers(0, 200, (count, 4, 4), np.uint8).repeat(4, axis=1).repeat(4, axis=2).reshape(count, 256)
    thumbnails = coarse + thumbnails // 5
    thumbnails[copies] = np.flip(thumbnails[originals].reshape(-1, 16, 16), 2).reshape(-1, 256)
    begun = time.perf_counter()
    turned = standardised(thumbnails, options.near_duplicate_error)
    print(f"mirrored and in standard contrast: {time.perf_counter() - begun:.1f} s, {len(turned.image)} appearances")
    row(turned, count, "random, 1 % copies, mirrored or not")
    row(turned, BATCH, "random, 1 % copies, mirrored or not")
    Console().print(table)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def _several(pairs: Indices) -> int:
    numbers = np.unique(pairs)
    return len(set(components(len(numbers), np.searchsorted(numbers, pairs)).tolist()))


if __name__ == "__main__":
    main()
