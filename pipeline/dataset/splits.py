"""Which images train, which select, which are held out, decided once per group and kept as the data grows.

A group is the user's group, else a cluster of near duplicates, else one image; its split follows from a salted
hash of its name, so no image ever changes sides and nothing leaks between them. The hash does not know classes,
so groups that are new and belong to a class that lacks held-out images are moved, while that class can spare them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType

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
    images: Sequence[Image],
    links: Iterable[tuple[str, str]],
    placed: Mapping[str, Placed],
    shares: Shares,
    cluster: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Placed]:
    """Places for the images that have none yet.

    Args:
        images: all current images.
        links: pairs of image ids that are near duplicates: between new images enough to connect them, between a new
            and a placed image enough to reach every cluster.
        placed: image id to its place, from earlier runs; these never change.
        cluster: image id to the name of what near duplicates connect it with; one that is missing is its own.

    Returns:
        Image id to place, for every image of `images` that is not in `placed`. An image that would connect
        groups of different splits is quarantined: either side would leak into the other.
    """
    new = {image.image_id for image in images if image.image_id not in placed}
    groups = Groups()
    contacts = _contacts(images, links, placed, cluster, new, groups)
    linking = {image_id for image_id in new if len({place_.split for place_ in contacts[image_id]}) > 1}
    found = {
        image_id: Placed(image_id, QUARANTINE, "near duplicate of images in different splits") for image_id in linking
    }
    # A quarantined image still holds its near duplicates together, but brings none of its own contacts.
    members: dict[str, list[str]] = defaultdict(list)
    known: dict[str, set[Placed]] = defaultdict(set)
    for image_id in sorted(new - linking):
        root = groups.representative(image_id)
        members[root].append(image_id)
        known[root] |= contacts[image_id]

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


def _contacts(
    images: Sequence[Image],
    links: Iterable[tuple[str, str]],
    placed: Mapping[str, Placed],
    cluster: Mapping[str, str],
    new: Set[str],
    groups: Groups,
) -> dict[str, set[Placed]]:
    """For every new image the places, quarantine excepted, of placed images that it must share a side with.

    Joins in `groups` the new images that must share a side with each other: near duplicates and user groups.
    """
    of_cluster: dict[str, set[Placed]] = defaultdict(set)
    for image_id, place_ in placed.items():
        if place_.split != QUARANTINE:
            of_cluster[cluster.get(image_id, image_id)].add(Placed(place_.group, place_.split))
    contacts: dict[str, set[Placed]] = {image_id: set() for image_id in new}
    for one, other in links:
        if one in new and other in new:
            groups.join(one, other)
        elif one in new or other in new:
            here, there = (one, other) if one in new else (other, one)
            contacts[here] |= of_cluster.get(cluster.get(there, there), set())
    by_user_group: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if image.user_group is not None:
            by_user_group[image.user_group].append(image.image_id)
    for ids in by_user_group.values():
        sides = {Placed(placed[i].group, placed[i].split) for i in ids if i in placed and placed[i].split != QUARANTINE}
        fresh = [image_id for image_id in ids if image_id in new]
        for image_id in fresh:
            groups.join(fresh[0], image_id)
            contacts[image_id] |= sides
    return contacts


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
