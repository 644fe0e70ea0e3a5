"""data/predictions.parquet: the columns, and the tables that plots are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

TEST = "test"  # `source` of the held-out images; the others are fold-0, …
PLOTTED = 100  # classes; more bars cannot be read
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
        ("live_probabilities", pa.list_(pa.float32())),
        ("source", pa.string()),
        ("group", pa.string()),
    ]
)


def of_test(predictions: pa.Table) -> pa.Table:
    return predictions.filter(pc.equal(predictions["source"], TEST))


def confusion_pairs(predictions: pa.Table) -> pa.Table:
    """One row per test image: `actual`, `predicted`."""
    test = of_test(predictions)
    return pa.table({"actual": test["label"], "predicted": test["predicted"]})


def reliability(calibration: Mapping[str, Any]) -> pa.Table:
    """`confidence` (mean), `accuracy` and `images` of each of the `bins` in that section of metrics/evaluate.json."""
    columns = {"confidence": pa.float64(), "accuracy": pa.float64(), "images": pa.int64()}
    return pa.table(
        {name: pa.array([each[name] for each in calibration["bins"]], kind) for name, kind in columns.items()}
    )


def recalls(per_class: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """`label`, `recall` and `images` of the classes with test images, at most `PLOTTED`: the worst, worst first."""
    rows = [
        {"label": label, "recall": found["recall"], "images": found["support"]}
        for label, found in per_class.items()
        if found["support"]
    ]
    schema = pa.schema([("label", pa.string()), ("recall", pa.float64()), ("images", pa.int64())])
    return pa.Table.from_pylist(sorted(rows, key=lambda row: (row["recall"], row["label"]))[:PLOTTED], schema)
