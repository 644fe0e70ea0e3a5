import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.splits import QUARANTINE, TEST, TRAIN, VAL, Image, Placed, Shares, folds, place

SHARES = Shares("salt", val=0.15, test=0.15, min_per_class=1)


def images(count: int, label: str = "a", first: int = 0) -> list[Image]:
    return [Image(f"{label}{number:04d}", label) for number in range(first, first + count)]


def splits_of(places: dict[str, Placed]) -> dict[str, str]:
    return {image_id: placed.split for image_id, placed in places.items()}


def test_the_shares_are_met_and_another_salt_draws_anew() -> None:
    found = splits_of(place(images(4000), [], {}, SHARES))
    counts = Counter(found.values())
    # Binomial with n = 4000, p = 0.15 has a standard deviation of 23: 100 is more than four of them.
    assert abs(counts[TEST] - 600) < 100
    assert abs(counts[VAL] - 600) < 100
    assert found != splits_of(place(images(4000), [], {}, Shares("other", 0.15, 0.15, 1)))


def test_an_image_keeps_its_split_and_its_near_duplicates_follow_it() -> None:
    first = place(images(200), [], {}, SHARES)
    held_out = next(image_id for image_id, placed in first.items() if placed.split == TEST)
    copies = [Image(f"copy{number}", "a") for number in range(3)]
    # The third copy is like the second only: a chain is one group.
    links = [(held_out, "copy0"), ("copy1", held_out), ("copy1", "copy2")]
    second = place([*images(200), *copies], links, first, SHARES)
    assert second == dict.fromkeys(["copy0", "copy1", "copy2"], Placed(held_out, TEST))


def test_users_groups_are_never_torn() -> None:
    patients = [Image(f"i{number:03d}", "a", f"patient{number // 10}") for number in range(300)]
    found = place(patients, [], {}, SHARES)
    for patient in range(30):
        assert len({found[f"i{number:03d}"] for number in range(patient * 10, patient * 10 + 10)}) == 1


@pytest.mark.parametrize("chain", [["link"], ["link", "next"]], ids=["direct", "through another new image"])
def test_an_image_between_two_splits_is_quarantined(chain: list[str]) -> None:
    placed = {"t": Placed("t", TRAIN), "h": Placed("h", TEST)}
    path = ["t", *chain, "h"]
    current = [Image(name, "a") for name in path]
    found = place(current, list(itertools.pairwise(path)), placed, SHARES)
    assert {placed.split for placed in found.values()} == {QUARANTINE}
    assert all(placed.reason for placed in found.values())


def test_a_rare_class_gets_its_held_out_images() -> None:
    for salt in map(str, range(20)):
        current = [*images(300, "many"), *images(30, "few")]
        found = splits_of(place(current, [], {}, Shares(salt, 0.15, 0.15, 2)))
        few = Counter(found[image.image_id] for image in current if image.label == "few")
        assert min(few[TEST], few[VAL]) >= 2
        assert few[TRAIN] >= 15


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_the_smallest_class_can_be_trained_on_in_every_fold(count: int) -> None:
    for salt in map(str, range(200)):
        current = [*images(60, "many"), *images(count, "few")]
        found = splits_of(place(current, [], {}, Shares(salt, 0.15, 0.15, 2)))
        trained = [image for image in current if found[image.image_id] in (TRAIN, VAL)]
        fold = folds(
            [f"{found[image.image_id]}/{image.label}" for image in trained], [image.image_id for image in trained], 3
        )
        few = {
            int(k)
            for k, image in zip(fold, trained, strict=True)
            if (image.label, found[image.image_id]) == ("few", TRAIN)
        }
        assert len(few) >= 2


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_over_random_arrivals_nothing_moves_and_nothing_leaks(data: st.DataObject) -> None:
    total = data.draw(st.integers(5, 40))
    everything = [
        Image(f"i{n}", data.draw(st.sampled_from("ab")), data.draw(st.sampled_from([None, None, "g", "h"])))
        for n in range(total)
    ]
    ids = [image.image_id for image in everything]
    links = data.draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), max_size=30))
    placed: dict[str, Placed] = {}
    arrived = 0
    while arrived < total:
        arrived += data.draw(st.integers(1, total - arrived))
        here = set(ids[:arrived])
        before = dict(placed)
        new = place(everything[:arrived], [(a, b) for a, b in links if a in here and b in here], placed, SHARES)
        assert not set(new) & set(placed)
        placed |= new
        assert before.items() <= placed.items()
        assert set(placed) == here
    used = {image_id: placed[image_id].split for image_id in ids if placed[image_id].split != QUARANTINE}
    for one, other in links:
        if one in used and other in used:
            assert used[one] == used[other]
    for group in ("g", "h"):
        assert (
            len({used[image.image_id] for image in everything if image.user_group == group and image.image_id in used})
            <= 1
        )


def test_folds_keep_groups_whole_and_classes_balanced() -> None:
    labels = ["a"] * 60 + ["b"] * 30
    groups = [f"g{number // 2}" for number in range(90)]
    found = folds(labels, groups, 3)
    assert sorted(Counter(found.tolist()).values()) == [30, 30, 30]
    assert all(len({found[i] for i in range(90) if groups[i] == group}) == 1 for group in set(groups))
    assert [int(np.sum(found[60:] == fold)) for fold in range(3)] == [10, 10, 10]
