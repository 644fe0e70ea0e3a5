"""Which images train, which select, which are held out, decided once per group and kept as the data grows.

A group is the user's group, else a cluster of near duplicates, else one image; its split follows from a salted
hash of its name, so no image ever changes sides and nothing leaks between them. The hash does not know classes,
so groups that are new and belong to a class that lacks held-out images are moved, while that class can spare them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.dataset.duplicates import Groups

TRAIN, VAL, TEST, QUARANTINE = "train", "val", "test", "quarantine"
SCHEMA = pa.schema([("image_id", pa.string()), ("group", pa.string()), ("split", pa.string()), ("reason", pa.string())])
SALT_KEY = b"salt"
MIN_TRAINING_GROUPS = 2


@dataclass(frozen=True)
class Image:
    image_id: str
    label: str
    user_group: str | None = None


@dataclass(frozen=True)
class Placed:
    """Where an image belongs. `reason` is None unless `split` is `quarantine`."""

    group: str
    split: str
    reason: str | None = None


@dataclass(frozen=True)
class Shares:
    salt: str
    val: float
    test: float
    min_per_class: int


def draw(group: str, salt: str) -> float:
    """Uniform in [0, 1), a pure function of group and salt."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{group}".encode()).digest()[:8], "big") / 2**64


def place(
    images: Sequence[Image], links: Iterable[tuple[str, str]], placed: Mapping[str, Placed], shares: Shares
) -> dict[str, Placed]:
    """Places for the images that have none yet.

    Args:
        images: all current images.
        links: pairs of image ids that are near duplicates.
        placed: image id to its place, from earlier runs; these never change.

    Returns:
        Image id to place, for every image of `images` that is not in `placed`. An image that would connect
        groups of different splits is quarantined: either side would leak into the other.
    """
    new = {image.image_id: image for image in images if image.image_id not in placed}
    neighbours = _neighbours(images, links, placed, new)
    linking = {
        image_id
        for image_id, others in neighbours.items()
        if len({placed[other].split for other in others if other in placed}) > 1
    }
    found = {
        image_id: Placed(image_id, QUARANTINE, "near duplicate of images in different splits") for image_id in linking
    }
    groups = Groups()
    for image_id, others in neighbours.items():
        if image_id not in linking:
            groups.representative(_new(image_id))
            for other in others - linking:
                groups.join(_new(image_id), _old(placed[other].group) if other in placed else _new(other))

    members: dict[str, list[str]] = defaultdict(list)
    for image_id in neighbours:
        if image_id not in linking:
            members[groups.representative(_new(image_id))].append(image_id)
    known: dict[str, set[Placed]] = defaultdict(set)
    for place_ in set(placed.values()):
        if place_.split != QUARANTINE:
            known[groups.representative(_old(place_.group))].add(Placed(place_.group, place_.split))

    fresh: dict[str, list[str]] = {}
    for root, ids in members.items():
        sides = {place_.split for place_ in known[root]}
        if len(sides) > 1:
            reason = "its near duplicates connect images in different splits"
            found.update({image_id: Placed(image_id, QUARANTINE, reason) for image_id in ids})
        elif sides:
            first = min(known[root], key=lambda place_: place_.group)
            found.update(dict.fromkeys(ids, first))
        else:
            fresh[min(ids)] = ids
    splits = {group: _split(group, shares) for group in fresh}
    _meet_minimums(splits, fresh, images, {**placed, **found}, shares)
    for group, ids in fresh.items():
        found.update(dict.fromkeys(ids, Placed(group, splits[group])))
    return found


def _new(image_id: str) -> str:
    return f"image:{image_id}"


def _old(group: str) -> str:
    return f"group:{group}"  # sorts before "image:", though only identity matters here


def _neighbours(
    images: Sequence[Image],
    links: Iterable[tuple[str, str]],
    placed: Mapping[str, Placed],
    new: Mapping[str, Image],
) -> dict[str, set[str]]:
    """For every new image, the images it must share a side with: near duplicates and those of its user group."""
    neighbours: dict[str, set[str]] = {image_id: set() for image_id in new}
    by_user_group: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if image.user_group is not None:
            by_user_group[image.user_group].append(image.image_id)
    chained = ((ids[0], other) for ids in by_user_group.values() for other in ids[1:])
    usable = {image.image_id for image in images} | set(placed)
    for one, other in (*links, *chained):
        for here, there in ((one, other), (other, one)):
            quarantined = there in placed and placed[there].split == QUARANTINE
            if here in new and there in usable and not quarantined:
                neighbours[here].add(there)
    return neighbours


def _split(group: str, shares: Shares) -> str:
    position = draw(group, shares.salt)
    if position < shares.test:
        return TEST
    return VAL if position < shares.test + shares.val else TRAIN


def _meet_minimums(
    splits: dict[str, str],
    fresh: Mapping[str, Sequence[str]],
    images: Sequence[Image],
    places: Mapping[str, Placed],
    shares: Shares,
) -> None:
    """Move new groups of scarce classes out of training, those first that the hash put nearest to the border."""
    label_of = {image.image_id: image.label for image in images}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for image_id, label in label_of.items():
        if image_id in places:
            counts[label][places[image_id].split] += 1
    for group, ids in fresh.items():
        for image_id in ids:
            counts[label_of[image_id]][splits[group]] += 1
    for label in sorted(counts):
        mine = sorted(
            (group for group, ids in fresh.items() if {label_of[image_id] for image_id in ids} == {label}),
            key=lambda group: draw(group, shares.salt),
        )

        def move(group: str, target: str, label: str = label) -> None:
            counts[label].update({splits[group]: -len(fresh[group]), target: len(fresh[group])})
            splits[group] = target

        # Training comes first: without two groups, one for each of two folds, the class cannot be learned at all.
        trained = sum(splits[group] == TRAIN for group in mine)
        if counts[label][TRAIN] == sum(len(fresh[group]) for group in mine if splits[group] == TRAIN):
            held_out = [group for group in reversed(mine) if splits[group] != TRAIN]
            for group in held_out[: max(0, MIN_TRAINING_GROUPS - trained)]:
                move(group, TRAIN)
        spare = [group for group in mine if splits[group] == TRAIN]
        for target in (TEST, VAL):
            while len(spare) > MIN_TRAINING_GROUPS and counts[label][target] < shares.min_per_class:
                if counts[label][TRAIN] - len(fresh[spare[0]]) < counts[label].total() // 2:
                    break
                move(spare.pop(0), target)


def folds(labels: Sequence[str], groups: Sequence[str], count: int) -> np.ndarray:
    """Cross-validation folds, stratified by label, groups kept whole.

    The largest groups are placed first, each into the fold that has least of its labels, then least at all.
    scikit-learn's StratifiedGroupKFold refuses data whose classes are all smaller than the number of folds.

    Args:
        labels, groups: one per image.

    Returns:
        int64 [N], 0 to count - 1.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        members[group].append(number)
    has: list[Counter[str]] = [Counter() for _ in range(count)]
    result = np.full(len(labels), -1, np.int64)
    for _, numbers in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        mine = Counter(labels[number] for number in numbers)
        fold = min(
            range(count),
            key=lambda k: (sum(has[k][label] * size for label, size in mine.items()), has[k].total(), k),
        )
        has[fold].update(mine)
        result[numbers] = fold
    return result
