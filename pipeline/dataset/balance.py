"""Whole groups in bins, each class as near as it can be to the number of images that a bin is to have of it.

What is made small is the sum, over classes and bins, of (images - wanted images)^2 / images of the class (Pearson's
chi-square but for a factor), by moves of single groups, the one that gains most first, then by exchanges of two. Groups
with the same images of the same classes are of one *kind* and as good as each other; of these the one is moved that
lies nearest to the bin, in the order of `position`. So few groups are moved, and which does not depend on the order
in which they are given.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

LEAST_GAIN = 1e-9
COMPARISONS = 1 << 27  # of pairs for an exchange, in all: about two seconds
TRIED = 32  # of the best exchanges between two bins, until one leaves both what they must keep
NARROW = 128  # kinds on the narrow side of a search for an exchange, those with the largest gains

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Balance:
    """The groups and where they are. `images`, `groups`: int64 [classes, bins], what each bin has of each class."""

    def __init__(
        self,
        contents: Sequence[Mapping[int, int]],
        bins: Sequence[int],
        position: Sequence[float],
        *,
        wanted: Floats,
        weight: Sequence[float],
        images: Ints | None = None,
        groups: Ints | None = None,
    ) -> None:
        """
        Args:
            contents: for each group the number of images (at least one) of each class.
            bins: the bin that each is in.
            position: of each group on the line on which bin 0 comes first, the last bin last.
            wanted: [classes, bins], in images.
            weight: how much each bin matters.
            images, groups: [classes, bins], what is in the bins besides and cannot be moved.
        """
        kinds = sorted({tuple(sorted(content.items())) for content in contents})
        number = {kind: index for index, kind in enumerate(kinds)}
        self._kind = [number[tuple(sorted(content.items()))] for content in contents]
        self.bins = list(bins)
        self._wanted, self._weight = wanted, np.asarray(weight, float)
        lengths = np.array([0, *map(len, kinds)])
        classes = np.array([label for kind in kinds for label, _ in kind], np.int64)
        sizes = np.array([size for kind in kinds for _, size in kind], np.int64)
        self._content = csr_matrix((sizes, classes, np.cumsum(lengths)), shape=(len(kinds), len(wanted)))
        self._of_class = self._content.tocsc()
        self.images = np.zeros(wanted.shape, np.int64) if images is None else images.copy()
        self.groups = np.zeros(wanted.shape, np.int64) if groups is None else groups.copy()
        self._number = np.zeros((len(wanted[0]), len(kinds)), np.int64)  # of groups of a kind in a bin
        self._shelf: dict[tuple[int, int], list[tuple[float, int]]] = {}
        for group, (kind, bin_) in enumerate(zip(self._kind, self.bins, strict=True)):
            self._number[bin_, kind] += 1
            self._shelf.setdefault((bin_, kind), []).append((position[group], group))
            for label, size in kinds[kind]:
                self.images[label, bin_] += size
                self.groups[label, bin_] += 1
        for shelf in self._shelf.values():
            shelf.sort()
        self._scale = 1 / np.maximum(self.images.sum(axis=1), 1)
        self._square = self._content.multiply(self._content).astype(float) @ self._scale
        self._leaving, self._entering = np.zeros(self._number.shape), np.zeros(self._number.shape)
        self._may_leave = np.zeros(self._number.shape, bool)
        self._large = np.zeros(self._number.shape, bool)
        for kind, content in enumerate(kinds):
            labels, images_of = map(np.array, zip(*content, strict=True))
            self._large[:, kind] = (images_of[:, None] > wanted[labels]).any(axis=0)
        self._barred = np.zeros_like(self._large)
        self.keep(np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape, np.int64))

    def keep(self, images: Ints, groups: Ints) -> None:
        """From now on no move leaves a bin with fewer images or groups of a class than these, [classes, bins]."""
        self._least_images, self._least_groups = images, groups
        self._measure(range(len(self._number)))

    def empty(self, bin_: int, into: int) -> None:
        """Move the groups that alone are more than the bin is to have of a class."""
        for kind in np.flatnonzero(self._large[bin_]):
            while self._number[bin_, kind]:
                self._move(int(kind), bin_, into)

    def improve(self, *, large: bool = True) -> None:
        """Move and exchange groups as long as it helps; without `large`, none that alone are too much for a bin."""
        self._barred = np.zeros_like(self._large) if large else self._large
        budget = COMPARISONS
        while True:
            while (move := self._best_move()) is not None:
                self._move(*move)
            exchange, spent = self._best_exchange(budget)
            budget -= spent
            if exchange is None:
                return
            one, here, other, there = exchange
            self._move(one, here, there)
            self._move(other, there, here)

    def fill(self, label: int, bin_: int, images: int, groups: int = 0) -> None:
        """Move groups with this class into the bin, at the least cost, until it has so many; or as far as it goes."""
        kinds = self._of_class.indices[self._of_class.indptr[label] : self._of_class.indptr[label + 1]]
        while self.images[label, bin_] < images or self.groups[label, bin_] < groups:
            cost = np.where(self._may_leave[:, kinds], self._leaving[:, kinds], np.inf) + self._entering[bin_, kinds]
            cost[bin_] = np.inf
            if not cost.size or np.isinf(cost).all():
                return
            here, column = np.unravel_index(np.argmin(cost), cost.shape)
            self._move(int(kinds[column]), int(here), bin_)

    def _measure(self, bins: Sequence[int] | range) -> None:
        """What it costs each kind to leave and to enter these bins, and which may leave."""
        starts = self._content.indptr[:-1]
        for bin_ in bins:
            off = (self.images[:, bin_] - self._wanted[:, bin_]) * self._scale
            pull = 2 * (self._content @ off)
            self._leaving[bin_] = self._weight[bin_] * (self._square - pull)
            self._entering[bin_] = self._weight[bin_] * (self._square + pull)
            free = np.where(
                self.groups[:, bin_] > self._least_groups[:, bin_],
                self.images[:, bin_] - self._least_images[:, bin_],
                -1,
            )
            if len(starts):
                room = np.minimum.reduceat(free[self._content.indices] - self._content.data, starts)
                self._may_leave[bin_] = (self._number[bin_] > 0) & (room >= 0)

    def _best_move(self) -> tuple[int, int, int] | None:
        """(kind, from, to)"""
        best, least = None, -LEAST_GAIN
        leaving = np.where(self._may_leave, self._leaving, np.inf)
        entering = np.where(self._barred, np.inf, self._entering)
        for here in range(len(leaving)):
            for there in range(len(leaving)):
                if here != there and leaving.size:
                    cost = leaving[here] + entering[there]
                    kind = int(np.argmin(cost))
                    if cost[kind] < least - LEAST_GAIN:
                        best, least = (kind, here, there), cost[kind]
        return best

    def _best_exchange(self, budget: int) -> tuple[tuple[int, int, int, int] | None, int]:
        """((kind, its bin, other kind, its bin) or None, number of pairs compared)"""
        best, least, spent = None, -LEAST_GAIN, 0
        for here in range(len(self._number)):
            for there in range(len(self._number)):
                if here == there:
                    continue
                out = self._leaving[here] + self._entering[there]
                back = self._leaving[there] + self._entering[here]
                ones = _least(out, (self._number[here] > 0) & ~self._barred[there], NARROW)
                others = _least(back, (self._number[there] > 0) & ~self._barred[here], NARROW * NARROW)
                spent += len(ones) * len(others)
                if not len(ones) or not len(others) or spent > budget:
                    continue
                # What enters a bin makes up for what leaves it as far as they are of the same classes.
                shared = (self._content[ones].multiply(self._scale) @ self._content[others].T).toarray()
                cost = out[ones][:, None] + back[others] - 2 * (self._weight[here] + self._weight[there]) * shared
                # Of different classes they are two moves; if these helped and were allowed, they were made.
                gains = np.argwhere((cost < least - LEAST_GAIN) & (shared > 0))
                for row, column in gains[np.argsort(cost[tuple(gains.T)], kind="stable")[:TRIED]]:
                    one, other = int(ones[row]), int(others[column])
                    if self._leaves_enough(one, other, here) and self._leaves_enough(other, one, there):
                        best, least = (one, here, other, there), cost[row, column]
                        break
        return best, spent

    def _leaves_enough(self, out: int, into: int, bin_: int) -> bool:
        """Whether the bin keeps what it must if a group of kind `out` is replaced by one of kind `into`."""
        images, groups = self.images[:, bin_].copy(), self.groups[:, bin_].copy()
        gone, come = self._content[out], self._content[into]
        images[gone.indices] -= gone.data
        groups[gone.indices] -= 1
        images[come.indices] += come.data
        groups[come.indices] += 1
        touched = gone.indices
        images_kept = images[touched] >= np.minimum(self._least_images, self.images)[touched, bin_]
        groups_kept = groups[touched] >= np.minimum(self._least_groups, self.groups)[touched, bin_]
        return bool(images_kept.all() and groups_kept.all())

    def _move(self, kind: int, here: int, there: int) -> None:
        entry = self._shelf[here, kind].pop(0 if there < here else -1)
        insort(self._shelf.setdefault((there, kind), []), entry)
        self.bins[entry[1]] = there
        row = slice(self._content.indptr[kind], self._content.indptr[kind + 1])
        labels, sizes = self._content.indices[row], self._content.data[row]
        for bin_, sign in ((here, -1), (there, 1)):
            self._number[bin_, kind] += sign
            self.images[labels, bin_] += sign * sizes
            self.groups[labels, bin_] += sign
        self._measure((here, there))


def _least(cost: Floats, allowed: npt.NDArray[np.bool_], count: int) -> Ints:
    """Indices of the `count` least that are allowed; the first of equal ones."""
    found = np.flatnonzero(allowed)
    return found if len(found) <= count else found[np.argsort(cost[found], kind="stable")[:count]]
