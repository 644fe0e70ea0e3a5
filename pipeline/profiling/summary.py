"""metrics/profile.json: what the images are like, beside the live model's training data and beside ImageNet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.profiling import drift, features
from pipeline.profiling.imagenet.gap import DomainGap
from pipeline.profiling.imagenet.reference import Reference, gap
from pipeline.profiling.labels import Suspects

Pairs = Iterable[tuple[str, str]]


def summarise(
    table: pa.Table,
    training: pa.Table | None,
    imagenet: Reference,
    *,
    pairs: Pairs,
    cluster: Mapping[str, str],
    searched: Set[str],
    embedded: int,
    domain_gap: DomainGap | None,
    suspects: Suspects | None,
    alpha: float,
    min_distance: float,
) -> dict[str, Any]:
    """The content of metrics/profile.json (docs/formats.md).

    Args:
        table: feature rows of the current images, at least one; `batch` is the one that an image first came with.
        training: feature rows that the live model was trained on; None without a live model.
        pairs: image ids of near duplicates, of images that are no longer current too.
        cluster: image id to what near duplicates connect it with (`near_duplicates.clusters`).
        searched: image ids of those that were compared with each other for crops (`near_duplicates.searched`).
        embedded: images.
        domain_gap, suspects: None if there is nothing to tell them from.
        alpha: false-alarm rate of the drift test, 0-1.
        min_distance: Kolmogorov-Smirnov distance, 0-1, below which nothing is called drift.
    """
    new = table if training is None else drift.new_rows(table, training)
    found = drift.all_comparisons(table, training, alpha=alpha, min_distance=min_distance, groups=cluster)
    return {
        "images": table.num_rows,
        "new_images": new.num_rows,
        "live_classes": None if training is None else dict(Counter(training["label"].to_pylist())),
        "features": {name: _feature(name, table, training, imagenet) for name in features.NUMERIC},
        "drift": [asdict(item) for item in found],
        "imagenet_gap": gap(table, imagenet),
        "domain_gap": None if domain_gap is None else asdict(domain_gap),
        "near_duplicates": {
            "pairs": sum(one in cluster and other in cluster for one, other in pairs),
            "groups": len(set(cluster.values())),
            "images": len(cluster),
            "searched_for_crops": (crops := sum(image_id in searched for image_id in table["image_id"].to_pylist())),
            "not_searched_for_crops": table.num_rows - crops,
        },
        "embedded": embedded,
        "suspects": None if suspects is None else {"checked": suspects.checked, "found": suspects.found},
    }


def _feature(name: str, table: pa.Table, training: pa.Table | None, imagenet: Reference) -> dict[str, float | None]:
    p05, median, p95 = (float(value) for value in np.quantile(table[name].to_numpy(), (0.05, 0.5, 0.95)))
    known = imagenet.features.get(name)
    return {
        "median": median,
        "p05": p05,
        "p95": p95,
        "live_median": None
        if training is None or not training.num_rows
        else float(np.median(training[name].to_numpy())),
        "imagenet": None if known is None else known.median,
    }
