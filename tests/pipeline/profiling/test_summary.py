from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from pipeline.dataset.near_duplicates import clusters
from pipeline.profiling import features, labels, summary
from pipeline.profiling.imagenet import reference
from pipeline.profiling.imagenet.gap import DomainGap
from tests.pipeline.profiling.tables import table

IMAGENET = reference.load()


def summarised(rows: pa.Table, training: pa.Table | None = None, **changes: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"pairs": [], "searched": set(), "embedded": 0, "domain_gap": None, "suspects": None}
    nothing["cluster"] = clusters(rows["image_id"].to_pylist(), changes.get("pairs", []))
    content = summary.summarise(rows, training, IMAGENET, alpha=0.01, min_distance=0.1, **nothing | changes)
    json.dumps(content, allow_nan=False)
    return content


def test_without_a_live_model_everything_is_new_and_nothing_drifts() -> None:
    content = summarised(table(11, width=list(range(100, 111))))

    assert (content["images"], content["new_images"], content["drift"], content["live_classes"]) == (11, 11, [], None)
    assert set(content["features"]) == set(features.NUMERIC)
    width = content["features"]["width"]
    assert (width["p05"], width["median"], width["p95"], width["live_median"]) == (100.5, 105, 109.5, None)
    assert width["imagenet"] == 500
    assert content["features"]["bytes"]["imagenet"] is None


def test_only_new_batches_are_compared_with_the_live_model() -> None:
    old, new = table(300, seed=1), table(200, seed=2, batch="0002", saturation=0.0)
    content = summarised(pa.concat_tables([old, new]), old.slice(0, 200))

    assert (content["images"], content["new_images"]) == (500, 200)
    drifted = [(item["against"], item["feature"]) for item in content["drift"] if item["drifted"]]
    assert drifted == [("live", "saturation"), ("previous", "saturation")]
    assert content["live_classes"] == {"cat": 100, "dog": 100}
    assert content["features"]["saturation"]["live_median"] > 0.3


def test_what_could_not_be_looked_at_is_null() -> None:
    content = summarised(table(11))

    assert (content["domain_gap"], content["suspects"], content["embedded"]) == (None, None, 0)


def test_what_was_found_is_told() -> None:
    content = summarised(
        table(11),
        embedded=11,
        domain_gap=DomainGap(0.5, "words", 11, {"grey": 1.0}),
        suspects=labels.Suspects(10, labels.SCHEMA.empty_table()),
    )

    assert content["domain_gap"] == {"score": 0.5, "words": "words", "images": 11, "parts": {"grey": 1.0}}
    assert (content["suspects"], content["embedded"]) == ({"checked": 10, "found": 0}, 11)


def test_near_duplicates_are_counted_among_the_current_images() -> None:
    rows = table(6, image_id=list("abcdef"))
    pairs = [("a", "b"), ("b", "gone"), ("gone", "c"), ("d", "gone too"), ("e", "f")]

    content = summarised(rows, pairs=pairs, searched={"a", "b", "gone", "c", "d"})

    assert content["near_duplicates"] == {
        "pairs": 2,
        "groups": 2,
        "images": 5,
        "searched_for_crops": 4,
        "not_searched_for_crops": 2,
    }
