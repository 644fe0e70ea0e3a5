"""Which images must not be parted: near duplicates, and what the user has put into one group.

`data/duplicates` holds enough links, not all pairs (docs/adr/0008), so what it leaves out is filled in: two images
are in *contact* if

- they are of one cluster (what the links of one batch connect), or
- one has a link to the other's cluster, or
- they have the same user group.

Every pair of near duplicates is in contact; contact is not transitive. An image that is not in use (quarantined, or
gone from the source) does not connect its contacts, unless they are of its cluster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

from pipeline.dataset.duplicates import Groups

Value = TypeVar("Value", bound=Hashable)


class Contacts:
    """`links`: (image id, other), each standing for a contact with all of other's cluster; `cluster`: image id to the
    name of its cluster, one that is missing is its own; `user_group`: image id to group, of those that have one.
    """

    def __init__(
        self,
        links: Iterable[tuple[str, str]],
        cluster: Mapping[str, str] = MappingProxyType({}),
        user_group: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._cluster, self._user_group = cluster, user_group
        self._reached: dict[str, set[str]] = defaultdict(set)  # image id to clusters
        self._reaching: dict[str, set[str]] = defaultdict(set)  # cluster to image ids
        for image_id, other in links:
            target = self._of(other)
            if target != self._of(image_id):
                self._reached[image_id].add(target)
                self._reaching[target].add(image_id)

    def _of(self, image_id: str) -> str:
        return self._cluster.get(image_id, image_id)

    def near(self, ids: Iterable[str], values: Mapping[str, Value]) -> dict[str, set[Value]]:
        """For each of `ids` the values (image id to value) of its near duplicates. Its own value may be among them."""
        in_cluster: dict[str, set[Value]] = defaultdict(set)
        reaching: dict[str, set[Value]] = defaultdict(set)
        for image_id, value in values.items():
            in_cluster[self._of(image_id)].add(value)
            for target in self._reached.get(image_id, ()):
                reaching[target].add(value)
        empty: frozenset[Value] = frozenset()
        found = {}
        for image_id in ids:
            own = self._of(image_id)
            found[image_id] = in_cluster.get(own, empty) | reaching.get(own, empty)
            for target in self._reached.get(image_id, ()):
                found[image_id] |= in_cluster.get(target, empty)
        return {image_id: set(mine) for image_id, mine in found.items()}

    def grouped(self, ids: Iterable[str], values: Mapping[str, Value]) -> dict[str, set[Value]]:
        """The same of those with which it shares a user group."""
        in_group: dict[str, set[Value]] = defaultdict(set)
        for image_id, value in values.items():
            if image_id in self._user_group:
                in_group[self._user_group[image_id]].add(value)
        return {
            image_id: set(in_group.get(self._user_group[image_id], ())) if image_id in self._user_group else set()
            for image_id in ids
        }

    def of(self, image_id: str, among: Collection[str]) -> dict[str, str]:
        """The images of `among` in contact with this one: id to `near duplicate` or `group`."""
        own = self._of(image_id)
        targets = {own, *self._reached.get(image_id, ())}
        group = self._user_group.get(image_id)
        found = {}
        for other in among:
            if other == image_id:
                continue
            if self._of(other) in targets or own in self._reached.get(other, ()):
                found[other] = "near duplicate"
            elif group is not None and self._user_group.get(other) == group:
                found[other] = "group"
        return found

    def connected(self, ids: Collection[str]) -> Groups:
        """What contacts among `ids` connect, step by step."""
        wanted, groups = set(ids), Groups()
        first_of_cluster: dict[str, str] = {}
        first_of_group: dict[str, str] = {}
        for image_id in ids:
            groups.join(first_of_cluster.setdefault(self._of(image_id), image_id), image_id)
            if image_id in self._user_group:
                groups.join(first_of_group.setdefault(self._user_group[image_id], image_id), image_id)
        for target, reaching in self._reaching.items():
            if target in first_of_cluster:
                for image_id in reaching & wanted:
                    groups.join(first_of_cluster[target], image_id)
        return groups
