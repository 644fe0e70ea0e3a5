"""data/predictions.parquet: the columns, and what is taken from them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

TEST = "test"  # `source` of the held-out images; the others are fold-0, …
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("confidence", pa.float64()),
        ("probabilities", pa.list_(pa.float32())),
        ("live_predicted", pa.string()),
        ("live_confidence", pa.float64()),
        ("source", pa.string()),
    ]
)


def of_test(predictions: pa.Table) -> pa.Table:
    return predictions.filter(pc.equal(predictions["source"], TEST))


def confusion_pairs(predictions: pa.Table) -> pa.Table:
    """One row per test image: `actual`, `predicted`."""
    test = of_test(predictions)
    return pa.table({"actual": test["label"], "predicted": test["predicted"]})
