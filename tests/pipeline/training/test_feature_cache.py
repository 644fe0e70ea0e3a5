from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.training import feature_cache
from pipeline.training.feature_cache import Cache, Shelf, Stored

KEY = {"backbone": "tiny", "view": 0}


def rows(*values: float) -> np.ndarray:
    return np.array(values, np.float16)[:, None] * np.ones(3, np.float16)


def test_what_is_added_is_found_again_by_name(tmp_path: Path) -> None:
    Cache(tmp_path, 10**9).shelf(KEY).add(["a", "b"], rows(1, 2))
    Cache(tmp_path, 10**9).shelf(KEY).add(["c"], rows(3))

    shelf = Cache(tmp_path, 10**9).shelf(KEY)

    assert shelf.missing(["a", "x", "c"]) == ["x"]
    stored = Stored([shelf], ["c", "a", "b"])
    assert stored.shape == (1, 3, 3)
    np.testing.assert_array_equal(stored.view(0)[:, 0], [3, 1, 2])
    assert stored.view(0).dtype == np.float32


def test_another_key_is_another_shelf(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10**9)
    cache.shelf(KEY).add(["a"], rows(1))

    assert cache.shelf(KEY | {"view": 1}).missing(["a"]) == ["a"]


def test_views_and_rows_are_taken_in_pairs() -> None:
    shelves = [Shelf(None), Shelf(None)]
    for number, shelf in enumerate(shelves):
        shelf.add(["b"], rows(10 * number + 2))
        shelf.add(["a", "c"], rows(10 * number + 1, 10 * number + 3))

    taken = Stored(shelves, ["a", "b", "c"]).take(np.array([1, 0, 1, 0]), np.array([2, 0, 1, 0]))

    np.testing.assert_array_equal(taken[:, 0], [13, 1, 12, 1])


@pytest.mark.parametrize("damage", ["rows.npy", "names.txt", "cut"])
def test_a_damaged_part_is_as_if_it_had_never_been(tmp_path: Path, damage: str) -> None:
    shelf = Cache(tmp_path, 10**9).shelf(KEY)
    shelf.add(["a", "b"], rows(1, 2))
    shelf.add(["c"], rows(3))
    hurt = next(path for path in tmp_path.rglob("names.txt") if path.read_text() == "a\nb").parent
    if damage == "cut":
        content = (hurt / "rows.npy").read_bytes()
        (hurt / "rows.npy").write_bytes(content[:-4])
    else:
        (hurt / damage).unlink()

    again = Cache(tmp_path, 10**9).shelf(KEY)

    assert again.missing(["a", "b", "c"]) == ["a", "b"]
    again.add(["a", "b"], rows(1, 2))
    np.testing.assert_array_equal(Stored([again], ["a", "c"]).view(0)[:, 0], [1, 3])


def test_without_room_nothing_is_written(tmp_path: Path) -> None:
    shelf = Cache(tmp_path, 0).shelf(KEY)
    shelf.add(["a"], rows(1))

    np.testing.assert_array_equal(Stored([shelf], ["a"]).view(0), rows(1))
    assert list(tmp_path.iterdir()) == []


def test_the_shelves_that_were_not_used_for_longest_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 40_000)
    big = np.zeros((10, 1000), np.float16)  # 20 kB
    for number in range(3):
        cache.shelf({"number": number}).add([str(i) for i in range(10)], big)
    for age, path in enumerate(sorted(tmp_path.iterdir(), key=lambda path: (path / "key.json").read_text())):
        os.utime(path, (1000 + age, 1000 + age))
    used = cache.shelf({"number": 0})  # now the most recent one

    cache.trim()

    left = sorted((path / "key.json").read_text() for path in tmp_path.iterdir())
    assert left == ['{"number": 0}\n']
    assert used.missing(["3"]) == []
    cache.trim()
    assert len(list(tmp_path.iterdir())) == 1


def test_moments_are_those_of_all_views_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "_CHUNK", 3)
    values = np.random.default_rng(0).normal(5, 2, (2, 7, 4)).astype(np.float32)
    shelves = [Shelf(None), Shelf(None)]
    names = [str(number) for number in range(7)]
    for shelf, of_view in zip(shelves, values, strict=True):
        shelf.add(names, of_view)

    mean, variance = Stored(shelves, names).moments()

    np.testing.assert_allclose(mean, values.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(variance, values.var(axis=(0, 1)), rtol=1e-5)


@pytest.mark.parametrize("limit", [0, 10**9], ids=["taken from disk", "in memory"])
def test_rows_are_the_same_wherever_they_are_taken_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(feature_cache, "DENSE_BYTES", limit)
    shelf = Cache(tmp_path, 10**9).shelf(KEY)
    shelf.add(["a", "b"], rows(1, 2))
    shelf.add(["c"], rows(3))

    taken = Stored([shelf], ["c", "b", "a"]).take(np.zeros(4, np.int64), np.array([0, 2, 1, 0]))

    np.testing.assert_array_equal(taken[:, 0], [3, 1, 2, 3])
    assert taken.dtype == np.float32
