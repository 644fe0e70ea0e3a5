from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dataset import splits
from pipeline.dataset.duplicate_links import Links
from pipeline.evaluation import leakage

SPLITS = {"a": "test", "b": "test", "c": "train", "d": "val", "e": "train", "q": "quarantine"}
FOLDS = {"c": 0, "d": 1, "e": 1}


def find(*pairs: tuple[str, str], cluster: dict[str, str] | None = None, **groups: str) -> dict[str, Any]:
    ids = list(SPLITS)
    schema = pa.schema([(name, pa.string()) for name in ("image_id", "uri", "group")])
    rows = [{"image_id": each, "uri": f"/{each}.png", "group": groups.get(each)} for each in ids]
    table = pa.table({"image_id": ids, "split": list(SPLITS.values()), "fold": [FOLDS.get(each, -1) for each in ids]})
    return leakage.find(pa.Table.from_pylist(rows, schema), table, Links(pairs, cluster or {}))


def test_separate_images_do_not_leak() -> None:
    assert find() == {"groups": 0, "images": 0, "folds": 0, "examples": []}


def test_a_near_duplicate_in_training_is_named() -> None:
    assert find(("a", "c")) == {"groups": 1, "images": 1, "folds": 0, "examples": [["/a.png", "/c.png"]]}
    assert find(("d", "b"))["examples"] == [["/b.png", "/d.png"]]


def test_a_user_group_on_both_sides_leaks() -> None:
    found = find(a="patient", b="patient", e="patient")
    assert (found["groups"], found["images"]) == (1, 2)
    assert found["examples"] == [["/a.png", "/e.png"]]


def test_images_of_one_side_may_be_alike() -> None:
    assert find(("a", "b"), ("c", "e"), d="scene", e="scene") == {"groups": 0, "images": 0, "folds": 1, "examples": []}


def test_a_link_to_an_image_that_is_not_used_stands_for_its_cluster() -> None:
    """Of c and q, one batch's copies, a later batch's a has a link to q alone."""
    found = find(("q", "c"), ("a", "q"), cluster={"q": "c", "c": "c"})
    assert found["examples"] == [["/a.png", "/c.png"]]


def test_what_only_an_image_in_quarantine_connects_is_not_alike() -> None:
    assert find(("q", "a"), ("q", "c"))["groups"] == 0


@given(
    pairs=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")).filter(lambda p: p[0] > p[1])),
    groups=st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["one", "two"])),
)
def test_what_the_split_stage_places_does_not_leak(pairs: list[tuple[str, str]], groups: dict[str, str]) -> None:
    images = [splits.Image(each, "cat", groups.get(each)) for each in "abcdefgh"]
    placed = splits.place(images, pairs, {}, splits.Shares("salt", 0.3, 0.3, 0))
    ids = list(placed)
    schema = pa.schema([(name, pa.string()) for name in ("image_id", "uri", "group")])
    rows = [{"image_id": each, "uri": each, "group": groups.get(each)} for each in ids]
    table = pa.table({"image_id": ids, "split": [placed[each].split for each in ids], "fold": [0] * len(ids)})

    assert leakage.find(pa.Table.from_pylist(rows, schema), table, Links(tuple(pairs), {}))["groups"] == 0
