from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.dataset import images
from pipeline.profiling import drift, features
from tests.pipeline.profiling.tables import table

ALPHA = 0.05


def drifted(new: pa.Table, training: pa.Table, *, alpha: float = ALPHA, min_distance: float = 0.1) -> list[str]:
    found = drift.compare(new, training, alpha=alpha, min_distance=min_distance)
    return [item.feature for item in found if item.drifted]


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [
        pytest.param([0.01, 0.04, 0.03], [0.03, 0.06, 0.06], id="monotone"),
        pytest.param([0.5, 0.9], [1.0, 1.0], id="at-most-one"),
        pytest.param([0.02], [0.02], id="one-test-needs-no-correction"),
        pytest.param([], [], id="none"),
    ],
)
def test_holm(raw: list[float], adjusted: list[float]) -> None:
    assert drift.holm(raw) == pytest.approx(adjusted)


def test_small_batches_of_the_same_kind_raise_no_more_alarms_than_alpha() -> None:
    training = table(400, seed=10_000)
    alarms = sum(bool(drifted(table(50, seed), training)) for seed in range(200))

    # Alpha allows 10 of 200 on average; more than 17 would happen by chance once in 60 times.
    assert alarms <= 17


@pytest.mark.parametrize(
    ("feature", "change"),
    [("brightness", lambda v: v + 0.05), ("sharpness", lambda v: v / 2), ("width", lambda v: v // 2)],
    ids=["brighter", "blurred", "half-size"],
)
def test_a_shift_of_200_images_is_found_and_named(feature: str, change: object) -> None:
    new = table(200, seed=1)
    changed = new.set_column(
        new.column_names.index(feature),
        feature,
        pa.array(change(new[feature].to_numpy()), new[feature].type),  # type: ignore[operator]
    )

    assert drifted(changed, table(400, seed=2)) == [feature]


def test_a_difference_too_small_to_matter_is_no_drift_however_many_images_show_it() -> None:
    training, new = table(20_000, seed=1), table(20_000, seed=2)
    shifted = new.set_column(new.column_names.index("entropy"), "entropy", pa.array(new["entropy"].to_numpy() + 0.03))

    assert drifted(shifted, training, min_distance=0) == ["entropy"]
    assert drifted(shifted, training, min_distance=0.1) == []


def test_one_entry_for_each_feature_and_none_without_images() -> None:
    found = drift.compare(table(5, seed=1), table(9, seed=2), alpha=ALPHA, min_distance=0.1)

    assert [item.feature for item in found] == list(features.NUMERIC)
    assert drift.compare(table(0), table(9), alpha=ALPHA, min_distance=0.1) == []


def test_new_rows_are_the_batches_without_any_image_of_the_training() -> None:
    first, second, third = table(4, seed=1), table(3, seed=2, batch="0002"), table(2, seed=3, batch="0003")
    # Of each batch the live model knew, half was held out of its training.
    training = pa.concat_tables([first.slice(0, 2), second.slice(0, 1)])

    assert drift.new_rows(pa.concat_tables([first, second, third]), training).equals(third)


@pytest.fixture(scope="module")
def photographs() -> pa.Table:
    folder = Path(__file__).parents[4] / "shared/data/imagenet_sample"
    if not folder.is_dir():
        pytest.skip(f"no sample photographs in {folder}")
    identity = {"image_id": "", "batch": "0001", "label": "photograph"}
    rows = []
    for path in sorted(folder.iterdir())[:300]:
        content = path.read_bytes()
        rows.append(identity | features.measure(images.decode(content, 10**9), len(content)))
    return pa.Table.from_pylist(rows, schema=features.SCHEMA)


def test_false_alarms_on_real_photographs(photographs: pa.Table) -> None:
    alarms = 0
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(photographs.num_rows)
        alarms += bool(drifted(photographs.take(order[:50]), photographs.take(order[50:])))

    assert alarms <= 17
