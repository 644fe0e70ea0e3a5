import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dataset import duplicates
from pipeline.dataset.duplicates import Appearances, Groups, as_stored, components, links

NONE = np.empty(0, np.int64)


def compare_all(hashes: np.ndarray, thumbnails: np.ndarray, bits: int, error: float) -> np.ndarray:
    found = [
        (i, j)
        for i, j in itertools.combinations(range(len(hashes)), 2)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= bits
        and np.sqrt(np.mean((thumbnails[i] / 255 - thumbnails[j] / 255) ** 2)) <= error
    ]
    return np.array(found, np.int64).reshape(-1, 2)


def some_images(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Hashes that are one of four centres with up to 8 bits flipped, dim thumbnails: many pairs on either side."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, 4, np.uint64)
    flips = [sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 9), replace=False)) for _ in range(count)]
    hashes = np.array([int(centres[i % 4]) ^ flip for i, flip in enumerate(flips)], np.uint64)
    thumbnails = rng.integers(0, 3, (count, 256)).astype(np.uint8) * rng.integers(1, 8, (count, 1)).astype(np.uint8)
    return hashes, thumbnails


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_new_images_hang_together_as_comparing_all_with_all_says(seed: int, bits: int) -> None:
    hashes, thumbnails = some_images(seed)
    found = links(as_stored(hashes, thumbnails), NONE, first_new=0, bits=bits, error=0.02)
    wanted = compare_all(hashes, thumbnails, bits, 0.02)
    assert {tuple(pair) for pair in found.tolist()} <= {tuple(pair) for pair in wanted.tolist()}
    np.testing.assert_array_equal(components(40, found), components(40, wanted))


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_a_new_image_has_one_pair_with_every_cluster_that_it_is_near_to(seed: int, bits: int) -> None:
    hashes, thumbnails = some_images(seed)
    wanted = compare_all(hashes, thumbnails, bits, 0.02)
    clusters = components(30, wanted[(wanted < 30).all(axis=1)])
    found = links(as_stored(hashes, thumbnails), clusters, first_new=30, bits=bits, error=0.02)
    assert (found[:, 1] >= 30).all()
    contacts = [(clusters[old], new) for old, new in found.tolist() if old < 30]
    assert len(contacts) == len(set(contacts))
    assert set(contacts) == {(clusters[old], new) for old, new in wanted.tolist() if old < 30 <= new}


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_one_appearance_of_several_that_is_near_makes_a_pair(seed: int, bits: int) -> None:
    hashes, thumbnails = some_images(seed, 60)
    image = np.sort(np.concatenate([np.arange(30), np.random.default_rng(seed).integers(0, 30, 30)]))
    near = image[compare_all(hashes, thumbnails, bits, 0.02)]
    wanted = {tuple(pair) for pair in near.tolist() if pair[0] != pair[1]}
    seen = Appearances(image, hashes, thumbnails)
    found = links(seen, NONE, first_new=0, bits=bits, error=0.02)
    assert {tuple(pair) for pair in found.tolist()} <= wanted
    np.testing.assert_array_equal(components(30, found), components(30, np.array(sorted(wanted)).reshape(-1, 2)))
    clusters = np.arange(20)
    found = links(seen, clusters, first_new=20, bits=bits, error=0.02)
    assert {tuple(pair) for pair in found.tolist() if pair[0] < 20} == {
        (old, new) for old, new in wanted if old < 20 <= new
    }


def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, thumbnails = some_images(5, 200)
    whole = components(200, links(as_stored(hashes, thumbnails), NONE, first_new=0, bits=3, error=0.02))
    monkeypatch.setattr(duplicates, "CANDIDATES", 7)
    monkeypatch.setattr(duplicates, "BLOCK", 3)
    parts = components(200, links(as_stored(hashes, thumbnails), NONE, first_new=0, bits=3, error=0.02))
    np.testing.assert_array_equal(whole, parts)
    assert len(set(whole.tolist())) < 200


def test_a_still_scene_has_few_pairs() -> None:
    noise = np.random.default_rng(0).integers(0, 4, (3000, 256)).astype(np.uint8) + 100
    found = links(as_stored(np.zeros(3000, np.uint64), noise), NONE, first_new=0, bits=3, error=0.02)
    assert len(set(components(3000, found).tolist())) == 1
    assert len(found) < 10 * 3000


@pytest.mark.parametrize("first_new", [0, 5], ids=["none at all", "none new"])
def test_nothing_new_has_no_pairs(first_new: int) -> None:
    hashes, thumbnails = np.zeros(first_new, np.uint64), np.zeros((first_new, 256), np.uint8)
    clusters = np.zeros(first_new, np.int64)
    assert links(as_stored(hashes, thumbnails), clusters, first_new=first_new, bits=3, error=0.1).shape == (0, 2)


def test_groups_are_what_joins_connect() -> None:
    groups = Groups()
    for one, other in (("d", "c"), ("b", "a"), ("c", "b"), ("y", "x")):
        groups.join(one, other)
    assert [groups.representative(name) for name in "abcdxyz"] == ["a", "a", "a", "a", "x", "x", "z"]
