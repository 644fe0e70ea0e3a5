"""Do new images look like those that the live model was trained on? One test for each feature.

The two-sample Kolmogorov-Smirnov test asks whether two samples of a number come from one distribution; its
p-value knows the sample sizes, so a small batch is not called drift for being small. Holm's correction keeps
the chance of any false alarm over all features together at alpha. With many images the smallest difference
becomes significant, so a distance that matters is asked for as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from pipeline.profiling import features


@dataclass(frozen=True)
class Drift:
    feature: str
    distance: float  # largest difference of the two cumulative distributions, 0-1
    p_value: float  # Holm-adjusted over all features of the comparison, 0-1
    drifted: bool


def new_rows(table: pa.Table, training: pa.Table) -> pa.Table:
    """Rows of the batches that came after the live model was trained: those with no image that it was trained on.

    Not simply all images missing from its training: its held-out test images are missing there too.
    """
    trained = pc.is_in(table["image_id"], value_set=training["image_id"].combine_chunks())
    old = pc.unique(table["batch"].filter(trained))
    return table.filter(pc.invert(pc.is_in(table["batch"], value_set=old)))


def compare(new: pa.Table, training: pa.Table, *, alpha: float, min_distance: float) -> list[Drift]:
    """One `Drift` for each numeric feature, in the order of `features.NUMERIC`; none if either table is empty.

    A feature has drifted when its adjusted p-value is at most `alpha` and its distance at least `min_distance`.
    """
    if not new.num_rows or not training.num_rows:
        return []
    tests = [stats.ks_2samp(new[name].to_numpy(), training[name].to_numpy()) for name in features.NUMERIC]
    p_values = holm([test.pvalue for test in tests])
    return [
        Drift(name, float(test.statistic), p, p <= alpha and bool(test.statistic >= min_distance))
        for name, test, p in zip(features.NUMERIC, tests, p_values, strict=True)
    ]


def holm(p_values: Iterable[float]) -> list[float]:
    """P-values adjusted for their number (Holm, A simple sequentially rejective multiple test procedure, 1979)."""
    raw = np.asarray(list(p_values), dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    scaled = raw[order] * np.arange(len(raw), 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]
