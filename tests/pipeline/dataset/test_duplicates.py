import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dataset.duplicates import Groups, pairs


def compare_all(hashes: np.ndarray, thumbnails: np.ndarray, bits: int, error: float) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i, j in itertools.combinations(range(len(hashes)), 2)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= bits
        and np.sqrt(np.mean((thumbnails[i] / 255 - thumbnails[j] / 255) ** 2)) <= error
    ]


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_the_index_finds_what_comparing_all_with_all_finds(seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, 4, np.uint64)
    # 40 hashes, each a centre with up to 8 bits flipped: many pairs on either side of the radius
    flips = [sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 9), replace=False)) for _ in range(40)]
    hashes = np.array([int(centres[i % 4]) ^ flip for i, flip in enumerate(flips)], np.uint64)
    thumbnails = rng.integers(0, 3, (40, 256)).astype(np.uint8) * rng.integers(1, 8, (40, 1)).astype(np.uint8)
    found = [tuple(pair) for pair in pairs(hashes, thumbnails, bits=bits, error=0.02).tolist()]
    assert found == compare_all(hashes, thumbnails, bits, 0.02)


def test_no_images_have_no_pairs() -> None:
    assert pairs(np.empty(0, np.uint64), np.empty((0, 256), np.uint8), bits=3, error=0.1).shape == (0, 2)


def test_groups_are_what_joins_connect() -> None:
    groups = Groups()
    for one, other in (("d", "c"), ("b", "a"), ("c", "b"), ("y", "x")):
        groups.join(one, other)
    assert [groups.representative(name) for name in "abcdxyz"] == ["a", "a", "a", "a", "x", "x", "z"]
