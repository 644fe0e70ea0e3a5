from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import SettingsError
from pipeline.evaluation import slices
from pipeline.evaluation.intervals import Resampling

HOW = Resampling(resamples=100, confidence=0.95, seed=1)
RIGHT = np.array([True, True, False, True, False, False, True, True])
GROUPS = np.array([0, 0, 1, 2, 3, 4, 5, 6])


def measure(*slicings: slices.Slicing, live: dict[int, bool] | None = None, smallest: int = 1) -> Any:
    return slices.measure(slicings, RIGHT, live, GROUPS, smallest=smallest, how=HOW)


CAMERA = slices.named("camera", ["left"] * 3 + ["right"] * 4 + [None])


def test_figures_by_hand() -> None:
    (left, right), left_out = measure(CAMERA)
    assert (left["by"], left["value"], left["images"], left["groups"]) == ("camera", "left", 3, 2)
    assert left["accuracy"] == pytest.approx(2 / 3)
    assert left["accuracy_low"] < 2 / 3 < left["accuracy_high"]
    assert (right["images"], right["groups"], right["accuracy"]) == (4, 4, 0.5)
    assert left_out == [{"by": "camera", "value": "no value", "images": 1, "reason": "no value"}]


def test_without_a_live_model_nothing_is_compared() -> None:
    (left, _), _ = measure(CAMERA)
    compared = ("live_accuracy", "difference", "difference_low", "difference_high")
    assert [left[name] for name in (*compared, "difference_low_all", "difference_high_all")] == [None] * 6
    assert left["compared"] == 0


def test_live_is_compared_on_the_images_that_it_has_not_seen() -> None:
    (left, right), _ = measure(CAMERA, live={0: True, 2: True})
    assert (left["compared"], left["live_accuracy"], left["difference"]) == (2, 1.0, -0.5)
    assert left["accuracy"] == pytest.approx(2 / 3)  # of all three
    assert left["difference_low"] < -0.5 < left["difference_high"]
    assert left["difference_high_all"] == left["difference_high"]  # the only slice that is compared
    assert right["compared"] == 0
    assert np.isnan([right["live_accuracy"], right["difference"], right["difference_low_all"]]).all()


def test_differences_of_all_slices_hold_together() -> None:
    (left, _), _ = measure(CAMERA, live=dict.fromkeys(range(8), True))
    assert left["difference_high_all"] > left["difference_high"]


def test_slices_by_label_and_the_others_are_two_families() -> None:
    """Two cameras beside eight labels are as wide as two cameras alone."""
    live = dict.fromkeys(range(8), True)
    names = ("difference_low_all", "difference_high_all")
    labels = slices.named("label", list("abcdefgh"))
    camera, label, both = (measure(*chosen, live=live)[0] for chosen in ([CAMERA], [labels], [CAMERA, labels]))
    assert [[row[name] for name in names] for row in both] == [[row[name] for name in names] for row in camera + label]
    assert camera[0]["difference_high_all"] < measure(CAMERA, replace(labels, by="size"), live=live)[0][0][names[1]]


def test_small_slices_are_counted() -> None:
    found, left_out = measure(CAMERA, smallest=4)
    assert [each["value"] for each in found] == ["right"]
    assert {"by": "camera", "value": "left", "images": 3, "reason": "few images"} in left_out


def test_one_slice_of_all_images_is_none() -> None:
    assert measure(slices.named("batch", ["0001"] * 8)) == ([], [])


def test_thirds_are_named_by_what_they_hold() -> None:
    found = slices.thirds("size", [9, 1, 2, 5, 4, 8], slices.of_pixels)
    assert found.order == ["short side 1 to 2 px", "short side 4 to 5 px", "short side 8 to 9 px"]
    assert [found.order.index(value) for value in found.values if value] == [2, 0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("sides", "order"),
    [
        ([7] * 5, ["short side 7 px"]),
        ([7] * 9 + [8], ["short side 7 px", "short side 8 px"]),
        ([1, 2, 3, 3, 3, 3], ["short side 1 to 2 px", "short side 3 px"]),
        ([5], ["short side 5 px"]),
        ([], []),
    ],
    ids=["all alike", "one larger", "ties", "one image", "none"],
)
def test_equal_values_are_never_parted(sides: list[float], order: list[str]) -> None:
    found = slices.thirds("size", sides, slices.of_pixels)
    assert found.order == order
    assert len(found.values) == len(sides)


def test_thirds_of_nearly_the_same_brightness_can_be_told_apart() -> None:
    found = slices.thirds("brightness", [0.5001, 0.5002, 0.5003, 0.5004, 0.5005, 0.5006], slices.of_brightness)
    assert found.order[0] == "brightness 0.5001 to 0.5002"
    assert slices.of_brightness(0.12, 0.313) == "brightness 0.12 to 0.31"


ATTRIBUTES = pa.table(
    {"image_id": ["a", "b"], "camera": ["left", None], "size": ["S", "L"]},
    pa.schema([(name, pa.string()) for name in ("image_id", "camera", "size")]),
)


@pytest.mark.parametrize(
    ("table", "name", "message"),
    [
        (ATTRIBUTES, "camra", "no further column 'camra', did you mean 'camera'"),
        (ATTRIBUTES, "label", "'label', It has camera, size"),
        (ATTRIBUTES, "image_id", "'image_id'"),
        (pa.table({"image_id": pa.array([], pa.string())}), "camera", "'camera', it has none"),
    ],
)
def test_an_unknown_column_is_an_error_that_names_the_known_ones(table: pa.Table, name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        slices.check_columns(table, [name])


def test_columns_that_exist_are_taken() -> None:
    slices.check_columns(ATTRIBUTES, ["camera", "size"])
    (camera, size), left_out = slices.of_columns(ATTRIBUTES, ["camera", "size"], ["b", "a", "c"])
    assert (camera.by, camera.values) == ("camera", [None, "left", None])
    assert (size.by, size.values) == ("size (labels file)", ["L", "S", None])
    assert left_out == []


def test_a_column_of_too_many_values_is_left_out_with_a_note() -> None:
    ids = [str(number) for number in range(60)]
    table = pa.table({"image_id": ids, "time": [str(number % 51) for number in range(60)]})
    assert slices.of_columns(table, ["time"], ids[:7]) == (
        [],
        [{"by": "time", "value": "51 different values, more than 50", "images": 7, "reason": "too many values"}],
    )
