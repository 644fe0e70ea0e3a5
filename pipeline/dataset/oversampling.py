"""How many augmented copies of which training images make up for rare classes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any


def copies(rows: Iterable[Mapping[str, Any]], *, balance: float, most: int) -> dict[str, int]:
    """Image id to its number of copies; images without any are left out.

    Batch by batch, each rare class is brought to `balance` times the largest class by copies of the batch's own images.
    What was given to earlier batches stays, so the cost follows the new images; it is not taken back when a class
    grows later.

    Args:
        rows: the training images: `image_id`, `label`, `batch`.
        balance: 0-1; 0 for no copies.
        most: copies of one image.
    """
    batches: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        batches[row["batch"]][row["label"]].append(row["image_id"])
    found: dict[str, int] = {}
    images: Counter[str] = Counter()
    held: Counter[str] = Counter()  # images and copies
    for batch in sorted(batches, key=int):
        for label, ids in batches[batch].items():
            images[label] += len(ids)
            held[label] += len(ids)
        wanted = math.ceil(round(balance * max(images.values()), 6))  # 0.07 * 100 is a little more than 7
        for label, ids in sorted(batches[batch].items()):
            missing = max(0, min(wanted - held[label], most * len(ids)))
            each, more = divmod(missing, len(ids))
            # The ids are digests, so which images get one more is a random choice that can be repeated.
            found |= {image_id: each + (place < more) for place, image_id in enumerate(sorted(ids))}
            held[label] += missing
    return {image_id: number for image_id, number in found.items() if number}
