"""Statistics of the feature table, in memory: no Beam runner is started (a million rows take seconds)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

from pipeline.profiling import features
from pipeline.profiling.schema import COLUMNS

IMAGENET = Path(__file__).with_name("imagenet") / "statistics.pb"
SPLITS = ("train", "val", "test")

BY_LABEL = pa.schema(
    [("label", pa.string()), ("feature", pa.string()), ("count", pa.int64())]
    + [(name, pa.float64()) for name in ("mean", "std", "min", "p05", "median", "p95", "max")]
)


def compute(table: pa.Table) -> DatasetFeatureStatisticsList:
    """Statistics of every feature in `COLUMNS` and of the label, over all rows."""
    return tfdv.generate_statistics_from_dataframe(table.select(COLUMNS).to_pandas())


def by_split(table: pa.Table, splits: Mapping[str, str]) -> DatasetFeatureStatisticsList:
    """`compute` of the images of each split, as the datasets `train`, `val` and `test`; an empty split has none.

    The dataset `imagenet` follows, for TFDV's drawings and comparisons to lay beside them.

    Args:
        splits: image id to split; images that are in none of the three are left out.
    """
    assigned = np.array([splits.get(image_id) for image_id in table["image_id"].to_pylist()], object)
    found = DatasetFeatureStatisticsList()
    for split in SPLITS:
        rows = table.filter(pa.array(assigned == split))
        if rows.num_rows:
            (dataset,) = compute(rows).datasets
            dataset.name = split
            found.datasets.append(dataset)
    (imagenet,) = DatasetFeatureStatisticsList.FromString(IMAGENET.read_bytes()).datasets
    imagenet.name = "imagenet"
    found.datasets.append(imagenet)
    return found


def by_label(table: pa.Table) -> pa.Table:
    """One row for each label and numeric feature, in the columns `BY_LABEL` (docs/formats.md), ordered by both.

    `std` is of the images themselves, no estimate for others; quantiles are interpolated. Grouped, because TFDV's
    slices take minutes for a thousand labels.
    """
    grouped = table.select(["label", *features.NUMERIC]).to_pandas().groupby("label")
    measures = {
        "count": grouped.count(),
        "mean": grouped.mean(),
        "std": grouped.std(ddof=0),
        "min": grouped.min(),
        "p05": grouped.quantile(0.05),
        "median": grouped.median(),
        "p95": grouped.quantile(0.95),
        "max": grouped.max(),
    }
    rows = pd.DataFrame({name: values.unstack() for name, values in measures.items()})  # index: feature, label
    rows = rows.rename_axis(["feature", "label"]).reset_index().sort_values(["label", "feature"])
    return pa.Table.from_pandas(rows, schema=BY_LABEL, preserve_index=False)


def to_bytes(statistics: DatasetFeatureStatisticsList) -> bytes:
    """The same statistics are the same bytes."""
    return statistics.SerializeToString(deterministic=True)
