import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.dataset import duplicate_links, near_duplicates
from pipeline.dataset.near_duplicates import Rules
from pipeline.dataset.splits import QUARANTINE, Image, Placed, Shares, place

BITS, ERROR = 3, 0.02
RULES = Rules(BITS, ERROR, detail=0.8, searched=0)


def features(numbers: list[int], hashes: np.ndarray, thumbnails: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "image_id": [f"{number:03d}" for number in numbers],
            "width": [16] * len(numbers),
            "height": [16] * len(numbers),
            "dhash": hashes[numbers].view(np.int64),
            "thumbnail": pa.array([thumbnails[number].tobytes() for number in numbers], pa.binary(256)),
        }
    )


def chain(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images in a row, each a near duplicate of the next one only."""
    brightness = 20 + 5 * np.arange(count)  # 5 / 255 is within the error, 10 / 255 is beyond
    return np.zeros(count, np.uint64), np.repeat(brightness[:, None], 256, axis=1).astype(np.uint8)


def test_pairs_within_and_across_batches(tmp_path: Path) -> None:
    row = chain(6)
    batches = {"0001": features([0, 1, 3], *row), "0002": features([5, 4, 1], *row)}
    near_duplicates.update(tmp_path, batches, RULES, 1)
    links = duplicate_links.read(tmp_path)
    assert {frozenset(pair) for pair in links.pairs} == {
        frozenset(pair) for pair in (("000", "001"), ("004", "003"), ("004", "005"))
    }
    assert links.cluster == {"000": "000", "001": "000", "004": "004", "005": "004"}


def test_a_file_is_written_again_only_if_what_it_was_made_from_changed(tmp_path: Path) -> None:
    row = chain(6)
    batches = {"0001": features([0, 1], *row), "0002": features([2, 3], *row)}

    def written() -> list[str]:
        before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
        near_duplicates.update(tmp_path, batches, replace(RULES, bits=bits), 1)
        return sorted(path.stem for path in tmp_path.iterdir() if path.stat().st_ino != before.get(path.name))

    bits = BITS
    assert written() == ["0001", "0002"]
    assert written() == []
    batches["0003"] = features([4], *row)
    assert written() == ["0003"]
    batches["0002"] = features([2, 5], *row)
    assert written() == ["0002", "0003"]
    bits = 5
    assert written() == ["0001", "0002", "0003"]
    del batches["0003"]
    assert written() == []
    assert not (tmp_path / "0003.parquet").exists()


def test_an_image_that_is_gone_still_connects_others() -> None:
    pairs = [("a", "b"), ("b", "gone"), ("gone", "c"), ("d", "gone too"), ("e", "f")]
    assert near_duplicates.clusters("abcdefg", pairs) == dict.fromkeys("abc", "a") | dict.fromkeys("ef", "e")


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
@example(3)  # in these an image that was quarantined is all that leads to its cluster
@example(19)
@example(44)
def test_near_duplicates_never_end_on_different_sides(seed: int) -> None:
    """Whatever the batches: by comparing all with all, no pair is parted by the splits."""
    rng = np.random.default_rng(seed)
    count = 60
    hashes = np.uint64(0x5A5A0F0F12345678) ^ (np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64))
    thumbnails = np.repeat(rng.integers(0, 120, (count, 1)), 256, axis=1).astype(np.uint8)
    batch_of = rng.integers(1, 5, count)
    placed: dict[str, Placed] = {}
    with tempfile.TemporaryDirectory() as folder:
        for last in range(1, 5):
            batches = {
                f"{batch:04d}": features(np.flatnonzero(batch_of == batch).tolist(), hashes, thumbnails)
                for batch in range(1, last + 1)
            }
            near_duplicates.update(Path(folder), batches, RULES, 1)
            links = duplicate_links.read(Path(folder))
            images = [Image(f"{number:03d}", "cat") for number in np.flatnonzero(batch_of <= last)]
            placed |= place(images, links.pairs, placed, Shares("salt", 0.3, 0.3, 1), links.cluster)
    assert len(placed) == count
    for one, other in itertools.combinations(range(count), 2):
        near = (int(hashes[one]) ^ int(hashes[other])).bit_count() <= BITS
        if near and abs(int(thumbnails[one, 0]) - int(thumbnails[other, 0])) <= ERROR * 255:
            sides = {placed[f"{one:03d}"].split, placed[f"{other:03d}"].split} - {QUARANTINE}
            assert len(sides) < 2
