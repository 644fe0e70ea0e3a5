from __future__ import annotations

import json

import pyarrow as pa

from pipeline.profiling import features, summary
from pipeline.profiling.imagenet import reference
from tests.pipeline.profiling.tables import table


def test_without_a_live_model_everything_is_new_and_nothing_drifts() -> None:
    content = summary.summarise(
        table(11, width=list(range(100, 111))), None, reference.load(), alpha=0.01, min_distance=0.1
    )

    assert (content["images"], content["new_images"], content["drift"], content["live_classes"]) == (11, 11, [], None)
    assert set(content["features"]) == set(features.NUMERIC)
    width = content["features"]["width"]
    assert (width["p05"], width["median"], width["p95"], width["live_median"]) == (100.5, 105, 109.5, None)
    assert width["imagenet"] == 500
    assert content["features"]["bytes"]["imagenet"] is None
    json.dumps(content, allow_nan=False)


def test_only_new_batches_are_compared_with_the_live_model() -> None:
    old, new = table(300, seed=1), table(200, seed=2, batch="0002", saturation=0.0)
    content = summary.summarise(
        pa.concat_tables([old, new]), old.slice(0, 200), reference.load(), alpha=0.01, min_distance=0.1
    )

    assert (content["images"], content["new_images"]) == (500, 200)
    assert [item["feature"] for item in content["drift"] if item["drifted"]] == ["saturation"]
    assert content["live_classes"] == {"cat": 100, "dog": 100}
    assert content["features"]["saturation"]["live_median"] > 0.3
    json.dumps(content, allow_nan=False)
