from __future__ import annotations

import numpy as np
import pytest

from pipeline import runtime
from pipeline.profiling import features
from tests.pipeline.profiling.tables import table

with runtime.quiet_imports():
    from pipeline.profiling import statistics


def test_every_property_and_no_identity_has_statistics() -> None:
    found = statistics.compute(table(50, label=["cat"] * 30 + ["dog"] * 20, brightness=[0.2] * 25 + [0.4] * 25))

    (dataset,) = found.datasets
    by_name = {feature.path.step[0]: feature for feature in dataset.features}
    assert dataset.num_examples == 50
    assert set(by_name) == set(statistics.COLUMNS)
    assert not {"image_id", "dhash", "thumbnail"} & set(by_name)
    assert round(by_name["brightness"].num_stats.mean, 6) == 0.3
    assert {bucket.label: bucket.sample_count for bucket in by_name["label"].string_stats.rank_histogram.buckets} == {
        "cat": 30,
        "dog": 20,
    }


def test_the_same_rows_give_the_same_bytes() -> None:
    one, other = (statistics.to_bytes(statistics.compute(table(200, seed=3))) for _ in range(2))

    assert one == other


def test_by_label_by_hand() -> None:
    rows = table(6, label=["b", "a", "b", "b", "b", "b"], brightness=[0.1, 0.5, 0.2, 0.3, 0.4, 0.5])
    found = statistics.by_label(rows)

    assert found.schema.equals(statistics.BY_LABEL)
    assert list(zip(found["label"].to_pylist(), found["feature"].to_pylist(), strict=True)) == [
        (label, name) for label in ("a", "b") for name in sorted(features.NUMERIC)
    ]
    by_key = {(row.pop("label"), row.pop("feature")): row for row in found.to_pylist()}
    assert by_key["a", "brightness"] == {
        "count": 1, "mean": 0.5, "std": 0.0, "min": 0.5, "p05": 0.5, "median": 0.5, "p95": 0.5, "max": 0.5,
    }  # fmt: skip
    assert by_key["b", "brightness"] == pytest.approx(
        {"count": 5, "mean": 0.3, "std": 0.02**0.5, "min": 0.1, "p05": 0.12, "median": 0.3, "p95": 0.48, "max": 0.5}
    )


def test_by_label_agrees_with_the_whole() -> None:
    rows = table(500, seed=4, label=[f"class {number % 7}" for number in range(500)])
    found = statistics.by_label(rows).to_pandas()

    for name in features.NUMERIC:
        of_feature, values = found[found["feature"] == name], rows[name].to_numpy()
        assert np.average(of_feature["mean"], weights=of_feature["count"]) == pytest.approx(values.mean())
        assert (of_feature["min"].min(), of_feature["max"].max()) == (values.min(), values.max())
        assert of_feature["count"].sum() == 500


def test_by_split_names_its_datasets_and_leaves_out_what_is_in_none() -> None:
    rows = table(10, brightness=[0.1] * 6 + [0.3] * 3 + [0.5])
    split = dict(zip(rows["image_id"].to_pylist(), ["train"] * 6 + ["test"] * 3 + ["quarantine"], strict=True))

    found = statistics.by_split(rows, split)

    examples = [(dataset.name, dataset.num_examples) for dataset in found.datasets]
    assert examples == [("train", 6), ("test", 3), ("imagenet", 500)]
    for dataset, mean in zip(found.datasets[:2], (0.1, 0.3), strict=True):
        (brightness,) = (each for each in dataset.features if each.path.step[0] == "brightness")
        assert brightness.num_stats.mean == pytest.approx(mean)
