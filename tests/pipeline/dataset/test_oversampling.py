from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import settings
from pipeline.dataset import assignment, oversampling
from pipeline.errors import SettingsError

SHIPPED = settings.load(Path(__file__).parents[3] / "params.yaml").augment


def rows(**counts: int) -> list[dict[str, str]]:
    """`common_1=10`: ten images of class `common` in batch 1."""
    return [
        {"image_id": f"{name}-{number:03}", "label": name.split("_")[0], "batch": f"{int(name.split('_')[1]):04}"}
        for name, count in counts.items()
        for number in range(count)
    ]


def test_a_rare_class_is_filled_up_evenly() -> None:
    """Half of 10 is 5, so the class of 3 lacks 2; the class of 6 lacks none."""
    found = oversampling.copies(rows(common_1=10, rare_1=3, middle_1=6), balance=0.5, most=3)

    assert found == {"rare_1-000": 1, "rare_1-001": 1}


@pytest.mark.parametrize(
    ("balance", "rare", "expected"),
    [(0.0, 1, []), (1.0, 5, [1] * 5), (1.0, 4, [2, 2, 1, 1]), (1.0, 2, [3, 3]), (0.7, 6, [1])],
    ids=["off", "one of each", "some two", "no more than the cap", "0.7 of 10 is 7 and not 8"],
)
def test_copies_of_a_class_next_to_one_of_ten(balance: float, rare: int, expected: list[int]) -> None:
    found = oversampling.copies(rows(common_1=10, rare_1=rare), balance=balance, most=3)

    assert list(found.values()) == expected


def test_a_product_just_above_a_whole_number_is_that_number() -> None:
    assert 0.07 * 100 > 7
    assert oversampling.copies(rows(common_1=100, rare_1=7), balance=0.07, most=3) == {}


def test_a_later_batch_makes_up_for_what_is_lacking_in_all() -> None:
    """Batch 1: 10 and 2, capped at 2 copies each: 6 of 10. Batch 2: 12 and 3: 12 less 6 + 1 makes 5, capped at 2."""
    found = oversampling.copies(rows(common_1=10, rare_1=2, common_2=2, rare_2=1), balance=1.0, most=2)

    assert found == {"rare_1-000": 2, "rare_1-001": 2, "rare_2-000": 2}


def test_batches_come_in_the_order_of_their_numbers() -> None:
    names = rows(common_1=4, rare_1=1, common_10000=4, rare_10000=1)  # "10000" sorts before "9999" as text

    assert oversampling.copies(names, balance=0.5, most=9) == {"rare_1-000": 1, "rare_10000-000": 1}


batch = st.lists(st.sampled_from("abc"), min_size=1, max_size=30)


@given(st.lists(batch, min_size=1, max_size=4), st.floats(0, 1), st.integers(1, 4))
def test_earlier_numbers_stay_and_no_image_or_class_gets_too_much(
    batches: list[list[str]], balance: float, most: int
) -> None:
    images = [
        {"image_id": f"{number}-{place:02}", "label": label, "batch": f"{number + 1:04}"}
        for number, labels in enumerate(batches)
        for place, label in enumerate(labels)
    ]
    before = [image for image in images if image["batch"] != f"{len(batches):04}"]

    found = oversampling.copies(images, balance=balance, most=most)
    earlier = oversampling.copies(before, balance=balance, most=most)

    assert {key: number for key, number in found.items() if not key.startswith(f"{len(batches) - 1}-")} == earlier
    assert all(0 < number <= most for number in found.values())
    largest = max(Counter(image["label"] for image in images).values())
    for label in {image["label"] for image in images[len(before) :] if image["image_id"] in found}:
        ids = [image["image_id"] for image in images if image["label"] == label]
        assert len(ids) + sum(found.get(image_id, 0) for image_id in ids) <= balance * largest + 1


def table(*chosen: tuple[str, str, str]) -> pa.Table:
    """(image id, label, split) of batch 1."""
    found = [
        {"image_id": name, "label": label, "class": 0, "group": name, "split": split, "fold": 0, "batch": "0001"}
        for name, label, split in chosen
    ]
    return pa.Table.from_pylist(found, assignment.SCHEMA)


def test_only_training_images_get_copies() -> None:
    images = table(
        ("a", "cat", "train"), ("b", "cat", "train"), ("c", "dog", "val"), ("d", "dog", "train"), ("e", "dog", "test")
    )

    found = assignment.with_copies(images, SHIPPED.model_copy(update={"balance": 1.0}))

    assert found.schema == assignment.SCHEMA
    assert found["copies"].to_pylist() == [0, 0, 0, 1, 0]


def test_a_label_that_is_never_to_be_mirrored_must_be_one() -> None:
    with pytest.raises(SettingsError, match=r"augment\.never_mirror.*'lefft', did you mean 'left'\?"):
        assignment.with_copies(table(("a", "left", "train")), SHIPPED.model_copy(update={"never_mirror": ("lefft",)}))
