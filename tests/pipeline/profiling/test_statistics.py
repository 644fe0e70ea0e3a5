from __future__ import annotations

from pipeline import runtime
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
