"""Whether one set of answers is worse than another by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from pipeline.diagnosis.facts import Answer

ALPHA = 0.05


@dataclass(frozen=True)
class Shares:
    """Right answers, 0-1, on `images` each."""

    first: float
    second: float
    images: tuple[int, int]

    @property
    def drop(self) -> float:
        return self.first - self.second

    @property
    def beyond_chance(self) -> bool:
        """Whether the first share is the larger one by Fisher's exact test, one-sided, at 5 %."""
        right = [round(share * count) for share, count in zip((self.first, self.second), self.images, strict=True)]
        table = [[hits, count - hits] for hits, count in zip(right, self.images, strict=True)]
        return bool(stats.fisher_exact(table, alternative="greater").pvalue < ALPHA)


def compare(first: Sequence[Answer], second: Sequence[Answer]) -> Shares | None:
    """None if either is empty."""
    if not first or not second:
        return None
    shares = [sum(answer.right for answer in answers) / len(answers) for answers in (first, second)]
    return Shares(shares[0], shares[1], (len(first), len(second)))
