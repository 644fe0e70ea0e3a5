from __future__ import annotations

import pytest

from pipeline.validation.tables import plain
from tests.pipeline.validation.gate import build, images, quarantined


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "Cat"),
        ("hot dog", "hot_dog"),
        ("hot dog", "HotDog"),
        ("hot-dog", " hot  dog "),
        ("hot dog", "hot\u00a0dog"),
        ("t-shirt", "t\u2013shirt"),
        ("caf\u00e9", "cafe\u0301"),
        ("stra\u00dfe", "STRASSE"),
        ("cat", "\uff43\uff41\uff54"),
        ("type_1", "Type 1"),
    ],
)
def test_one_name_in_two_forms(one: str, other: str) -> None:
    assert plain(one) == plain(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1-1", "11"), ("1 1", "11"), ("-1", "1"), ("c", "c++"), ("cat", "cats"), ("cafe", "caf\u00e9"), ("1.5", "15")],
)
def test_names_that_differ_in_more(one: str, other: str) -> None:
    assert plain(one) != plain(other)


def test_files_are_the_images_and_what_waits() -> None:
    files = build(images(2), quarantined(["exact-duplicate", "damaged"])).files

    assert files[["item", "status", "unusable"]].to_numpy().tolist() == [
        ["0.png", "accepted", 0],
        ["1.png", "accepted", 0],
        ["cat/q0.jpg", "exact-duplicate", 0],
        ["cat/q1.jpg", "damaged", 1],
    ]
