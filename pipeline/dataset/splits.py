"""Which images train, which select, which are held out, decided once per group and kept as the data grows.

A group is the user's group, else a cluster of near duplicates, else one image; its split follows from a salted
hash of its name, so no image ever changes sides and nothing leaks between them. The hash does not know classes,
so new groups are moved where a class would miss its shares. What comes to hang together too late is not used.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.dataset.balance import Balance
from pipeline.dataset.contacts import Contacts

TRAIN, VAL, TEST, QUARANTINE = "train", "val", "test", "quarantine"
BINS = (TEST, VAL, TRAIN)  # in the order of the hash
BETWEEN = "its near duplicates or its group are in different splits"
CONNECTING = "its near duplicates or its group connect images in different splits"
SCHEMA = pa.schema([("image_id", pa.string()), ("group", pa.string()), ("split", pa.string())])
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
    gone: Sequence[Image] = (),
) -> dict[str, Placed]:
    """Places for the images that have none yet.

    Args:
        images: all current images.
        links, cluster: as `Contacts` takes them, from `duplicate_links.read`.
        placed: image id to its place, from earlier runs; these never change. Places in quarantine do not count.
        gone: images that have left the source, with their last user group. They keep their side: they may come back.

    Returns:
        Image id to place, for every image of `images` that has none. Quarantined are images in contact with images of
        different splits: either side would leak into the other. Those that remain and are connected by contacts go
        together: to the split of what they are in contact with; into quarantine if that are two; else where the hash
        of their least id says, corrected for the shares of each class.
    """
    settled = {image_id: place_ for image_id, place_ in placed.items() if place_.split != QUARANTINE}
    contacts = _contacts(images, links, cluster, gone)
    new = sorted(image.image_id for image in images if image.image_id not in settled)
    near, grouped = contacts.near(new, settled), contacts.grouped(new, settled)
    found = {}
    for image_id in new:
        if len(_sides(near[image_id] | grouped[image_id])) > 1:
            found[image_id] = Placed(image_id, QUARANTINE, BETWEEN)
    rest = [image_id for image_id in new if image_id not in found]
    connected = contacts.connected(rest)
    members: dict[str, list[str]] = defaultdict(list)
    known: dict[str, set[Placed]] = defaultdict(set)
    for image_id in rest:
        root = connected.representative(image_id)
        members[root].append(image_id)
        known[root] |= near[image_id] | grouped[image_id]

    fresh: dict[str, list[str]] = {}
    for root, ids in members.items():
        sides = _sides(known[root])
        if len(sides) > 1:
            found.update({image_id: Placed(image_id, QUARANTINE, CONNECTING) for image_id in ids})
        elif sides:
            found.update(dict.fromkeys(ids, min(known[root], key=lambda place_: place_.group)))
        else:
            fresh[ids[0]] = ids
    used = {**settled, **found}
    for image_id in _withheld(contacts, images, settled):
        del used[image_id]
    label_of = {image.image_id: image.label for image in images}
    for group, split in _drawn(fresh, used, label_of, shares).items():
        found.update(dict.fromkeys(fresh[group], Placed(group, split)))
    return found


def withheld(
    images: Sequence[Image],
    links: Iterable[tuple[str, str]],
    placed: Mapping[str, Placed],
    cluster: Mapping[str, str] = MappingProxyType({}),
    gone: Sequence[Image] = (),
) -> dict[str, Placed]:
    """Current images that have a place but must not be used in it, as long as their contacts are what they are.

    Arguments are those of `place`. Groups and links may come to connect images that lie on different sides already.
    Test images stay, also those that have left the source, since scores that were measured on them stand. A val image
    in contact with a test image is withheld; a train image in contact with a test image or with a val image that is
    not withheld. Contacts of what is withheld are not.

    Returns:
        Image id to a place in quarantine. The recorded place stays as it is.
    """
    return {
        image_id: Placed(image_id, QUARANTINE, reason)
        for image_id, reason in _withheld(_contacts(images, links, cluster, gone), images, placed).items()
    }


def current_groups(
    images: Sequence[Image],
    links: Iterable[tuple[str, str]],
    places: Mapping[str, Placed],
    cluster: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Image id to the name of what contacts connect it with today, of those of `images` whose place is in use.

    The name is the least of the groups with which its images were placed, so it stays as the data grows; where people
    have parted a group, the least image id of the part follows it.
    """
    ids = sorted(image.image_id for image in images if places[image.image_id].split != QUARANTINE)
    connected = _contacts(images, links, cluster, ()).connected(ids)
    members: dict[str, list[str]] = defaultdict(list)
    for image_id in ids:
        members[connected.representative(image_id)].append(image_id)
    taken: set[str] = set()
    names = {}
    for mine in members.values():  # those with the least ids first
        group = min(places[image_id].group for image_id in mine)
        name = group if group not in taken else f"{group}/{mine[0]}"
        taken.add(name)
        names.update(dict.fromkeys(mine, name))
    return names


def _contacts(
    images: Sequence[Image], links: Iterable[tuple[str, str]], cluster: Mapping[str, str], gone: Sequence[Image]
) -> Contacts:
    known = {image.image_id: image.user_group for image in (*gone, *images)}
    return Contacts(links, cluster, {image_id: group for image_id, group in known.items() if group is not None})


def _sides(places: Iterable[Placed]) -> set[str]:
    return {place_.split for place_ in places}


def _withheld(contacts: Contacts, images: Sequence[Image], placed: Mapping[str, Placed]) -> dict[str, str]:
    """Image id to reason."""
    current = sorted(image.image_id for image in images)
    held_out = {image_id: TEST for image_id, place_ in placed.items() if place_.split == TEST}
    found: dict[str, str] = {}
    for split in (VAL, TRAIN):
        ids = [image_id for image_id in current if image_id in placed and placed[image_id].split == split]
        near, grouped = contacts.near(ids, held_out), contacts.grouped(ids, held_out)
        for image_id in ids:
            for how, sides in (("near duplicate of", near[image_id]), ("in one group with", grouped[image_id])):
                if sides and image_id not in found:
                    found[image_id] = f"{split} image, {how} a {TEST if TEST in sides else VAL} image"
        held_out |= {image_id: split for image_id in ids if image_id not in found}
    return found


def _drawn(
    fresh: Mapping[str, Sequence[str]], used: Mapping[str, Placed], label_of: Mapping[str, str], shares: Shares
) -> dict[str, str]:
    """Group to split, for the groups that nothing is known of.

    The hash decides. Then as few of them as it takes are moved, nearest to the border first, so that every class has
    its shares as nearly as whole groups allow. Before the shares come the minimums, before these the training: it
    keeps half of every class, and two groups, one for each of two folds.
    """
    if not fresh:
        return {}
    names = sorted(fresh)
    index = {label: number for number, label in enumerate(sorted(set(label_of.values())))}
    contents = [Counter(index[label_of[image_id]] for image_id in fresh[name]) for name in names]
    images, groups = _standing(used, label_of, index)
    total = images.sum(axis=1)
    for content in contents:
        for number, size in content.items():
            total[number] += size
    position = [draw(name, shares.salt) for name in names]
    balance = Balance(
        contents,
        [BINS.index(_split(place_, shares)) for place_ in position],
        position,
        wanted=np.stack(
            [
                np.maximum(total * shares.test, shares.min_per_class),
                np.maximum(total * shares.val, shares.min_per_class),
                total,
            ],
            axis=1,
        ),
        weight=(1.0, 0.99, 0.0),  # what only one of the two can have, the test set gets
        images=images,
        groups=groups,
    )
    train, held_out = BINS.index(TRAIN), [BINS.index(TEST), BINS.index(VAL)]
    least_images, least_groups = np.zeros_like(images), np.zeros_like(images)
    least_images[:, train], least_groups[:, train] = total // 2, MIN_TRAINING_GROUPS
    for bin_ in held_out:
        balance.empty(bin_, train)
    for number in range(len(index)):
        balance.fill(number, train, int(total[number] // 2), MIN_TRAINING_GROUPS)
    balance.keep(least_images, least_groups)
    balance.improve(large=False)
    balance.improve()
    least_images[:, held_out] = shares.min_per_class
    balance.keep(least_images, least_groups)
    for bin_ in held_out:
        for number in range(len(index)):
            balance.fill(number, bin_, shares.min_per_class)
    balance.improve()
    return {name: BINS[bin_] for name, bin_ in zip(names, balance.bins, strict=True)}


def _standing(
    used: Mapping[str, Placed], label_of: Mapping[str, str], index: Mapping[str, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Images and groups, int64 [classes, bins] each, of the current images that have their split already."""
    images, groups = np.zeros((2, len(index), len(BINS)), np.int64)
    seen: set[tuple[int, str]] = set()
    for image_id, label in label_of.items():
        if image_id in used and used[image_id].split != QUARANTINE:
            cell = index[label], BINS.index(used[image_id].split)
            images[cell] += 1
            if (index[label], used[image_id].group) not in seen:
                seen.add((index[label], used[image_id].group))
                groups[cell] += 1
    return images, groups


def _split(position: float, shares: Shares) -> str:
    if position < shares.test:
        return TEST
    return VAL if position < shares.test + shares.val else TRAIN


def folds(labels: Sequence[str], groups: Sequence[str], count: int) -> np.ndarray:
    """Cross-validation folds, stratified by label, groups kept whole.

    The largest groups are placed first, each where it brings its labels nearest to the mean, then `Balance` moves and
    exchanges groups. scikit-learn's StratifiedGroupKFold refuses data whose classes are all smaller than the number
    of folds, and spreads classes no better.

    Args:
        labels, groups: one per image.

    Returns:
        int64 [N], 0 to count - 1.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        members[group].append(number)
    index = {label: number for number, label in enumerate(sorted(set(labels)))}
    size = Counter(labels)
    has: list[Counter[str]] = [Counter() for _ in range(count)]
    total = [0] * count
    order = sorted(members, key=lambda group: (-len(members[group]), group))
    contents, bins = [], []
    for group in order:
        mine = Counter(labels[number] for number in members[group])
        fold = min(
            range(count),
            key=lambda k: (sum(has[k][label] * found / size[label] for label, found in mine.items()), total[k], k),
        )
        has[fold].update(mine)
        total[fold] += len(members[group])
        # All images count as one more class, so that the folds are of one size.
        contents.append({index[label]: found for label, found in mine.items()} | {len(index): len(members[group])})
        bins.append(fold)
    sizes = np.array([*(size[label] for label in index), len(labels)], float)
    balance = Balance(
        contents, bins, range(len(order)), wanted=np.repeat(sizes[:, None] / count, count, axis=1), weight=[1.0] * count
    )
    balance.improve()
    result = np.full(len(labels), -1, np.int64)
    for group, fold in zip(order, balance.bins, strict=True):
        result[members[group]] = fold
    return result
