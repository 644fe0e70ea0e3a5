"""TFDV statistics of the feature table, in memory: no Beam runner is started (a million rows take seconds)."""

from __future__ import annotations

import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

from pipeline.profiling import features

# What is no property of the data: names, hashes and pictures have as many values as images.
NO_STATISTICS = ("image_id", "batch", "dhash", "thumbnail")
COLUMNS = tuple(name for name in features.SCHEMA.names if name not in NO_STATISTICS)


def compute(table: pa.Table) -> DatasetFeatureStatisticsList:
    """Statistics of every feature in `COLUMNS` and of the label, over all rows."""
    return tfdv.generate_statistics_from_dataframe(table.select(COLUMNS).to_pandas())


def to_bytes(statistics: DatasetFeatureStatisticsList) -> bytes:
    """The same statistics are the same bytes."""
    return statistics.SerializeToString(deterministic=True)
