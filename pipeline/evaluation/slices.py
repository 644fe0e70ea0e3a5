"""Metrics of parts of the test set: a label, a batch, small or dark images, a value of the user's own column."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import SettingsError
from pipeline.evaluation import comparing, intervals, metrics
from pipeline.evaluation.intervals import Resampling
from pipeline.evaluation.metrics import Ints

LABEL, BATCH, SIZE, BRIGHTNESS = "label", "batch", "size", "brightness"
MAX_VALUES = 50  # of one column
FEW_IMAGES, TOO_MANY_VALUES, NO_VALUE = "few images", "too many values", "no value"  # why a slice is left out

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Slicing:
    """`values`: of each image, None where it has none. `order`: the values in the order to be listed."""

    by: str
    values: Sequence[str | None]
    order: Sequence[str]


def named(by: str, values: Sequence[str | None]) -> Slicing:
    return Slicing(by, values, sorted({value for value in values if value is not None}))


def thirds(by: str, values: Sequence[float], words: Callable[[float, float], str]) -> Slicing:
    """The images' thirds by a number, named by `words` of the lowest and the highest in each. Equal values stay
    together, so there may be fewer than three."""
    if not len(values):
        return Slicing(by, [], [])
    numbers = np.asarray(values, np.float64)
    third = np.searchsorted(np.unique(np.quantile(numbers, [1 / 3, 2 / 3])), numbers, side="left")
    name = {n: words(float(numbers[third == n].min()), float(numbers[third == n].max())) for n in np.unique(third)}
    return Slicing(by, [name[n] for n in third], list(dict.fromkeys(name.values())))


def of_pixels(low: float, high: float) -> str:
    """Words for `thirds` of images' shorter sides."""
    return f"short side {low:.0f} px" if low == high else f"short side {low:.0f} to {high:.0f} px"


def of_brightness(low: float, high: float) -> str:
    """Words for `thirds` of mean luma, 0-1; with more than two digits where thirds would look alike."""
    digits = next((n for n in range(2, 6) if round(low, n) != round(high, n)), 2)
    return f"brightness {low:.{digits}f} to {high:.{digits}f}"


def check_columns(attributes: pa.Table, wanted: Iterable[str]) -> None:
    """Raises `SettingsError` for a column that the labels file does not have."""
    known = [name for name in attributes.column_names if name != "image_id"]
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise SettingsError(
                f"evaluate.slices: the labels file has no further column {name!r}"
                + (f", did you mean {close[0]!r}? " if close else ", ")
                + (f"It has {', '.join(known)}." if known else "it has none."),
                fix="correct the name, or add the column to the labels file and ingest again",
            )


def of_columns(
    attributes: pa.Table, wanted: Iterable[str], ids: Sequence[str]
) -> tuple[list[Slicing], list[dict[str, Any]]]:
    """Slicings of the images `ids` by columns of data/attributes.parquet, and rows of `slices_left_out`."""
    slicings, left_out = [], []
    for name in wanted:
        value = dict(zip(attributes["image_id"].to_pylist(), attributes[name].to_pylist(), strict=True))
        by = f"{name} (labels file)" if name in (LABEL, BATCH, SIZE, BRIGHTNESS) else name
        distinct = len(set(value.values()) - {None})
        if distinct > MAX_VALUES:
            words = f"{distinct} different values, more than {MAX_VALUES}"
            left_out.append({"by": by, "value": words, "images": len(ids), "reason": TOO_MANY_VALUES})
        else:
            slicings.append(named(by, [value.get(image_id) for image_id in ids]))
    return slicings, left_out


def measure(
    slicings: Iterable[Slicing],
    correct: Bools,
    live: Mapping[int, bool] | None,
    groups: Ints,
    *,
    smallest: int,
    how: Resampling,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`slices` and `slices_left_out` of metrics/evaluate.json.

    A slicing that puts all images into one slice says nothing that the whole does not, and is left out in silence.

    Args:
        correct: bool [N], of the candidate; groups: int64 [N].
        live: whether the live model is right, by the number of the image, of those that it has not seen; None without.
        smallest: slices of fewer images are left out.
    """
    chosen: list[tuple[str, str, Ints]] = []
    left_out: list[dict[str, Any]] = []
    for slicing in slicings:
        values = np.array(slicing.values, dtype=object)
        members = {value: np.flatnonzero(values == value) for value in slicing.order}
        if len(members) == 1 and len(next(iter(members.values()))) == len(values):
            continue
        for value, images in members.items():
            if len(images) < smallest:
                left_out.append({"by": slicing.by, "value": value, "images": len(images), "reason": FEW_IMAGES})
            else:
                chosen.append((slicing.by, value, images))
        if nameless := sum(value is None for value in slicing.values):
            left_out.append({"by": slicing.by, "value": "no value", "images": nameless, "reason": NO_VALUE})
    compared = [np.array([i for i in images if i in live] if live else [], np.int64) for _, _, images in chosen]
    # The labels are a family of their own: the gate has a rule for classes, and a thousand of them would widen the
    # intervals of all other slices until none could be shown to be worse.
    family = Counter(by == LABEL for (by, _, _), both in zip(chosen, compared, strict=True) if len(both))
    found = []
    for (by, value, images), both in zip(chosen, compared, strict=True):
        interval = intervals.share(correct[images], groups[images], how.confidence)
        found.append(
            {
                "by": by,
                "value": value,
                "images": len(images),
                "groups": len(np.unique(groups[images])),
                "accuracy": metrics.share_of(correct[images]),
                "accuracy_low": interval.low,
                "accuracy_high": interval.high,
                **_beside(correct, live, groups, both, how.confidence, how.together(family[by == LABEL])),
            }
        )
    return found, left_out


def _beside(
    correct: Bools, live: Mapping[int, bool] | None, groups: Ints, both: Ints, confidence: float, together: float
) -> dict[str, Any]:
    if live is None:
        names = ("live_accuracy", "difference", "difference_low", "difference_high")
        return {"compared": 0, **dict.fromkeys((*names, "difference_low_all", "difference_high_all"))}
    theirs: Bools = np.array([live[i] for i in both.tolist()], bool)
    pair = np.stack([correct[both], theirs], axis=1)
    return {
        "compared": len(both),
        "live_accuracy": metrics.share_of(theirs),
        "difference": metrics.share_of(correct[both]) - metrics.share_of(theirs),
        **comparing.differences(pair, groups[both], confidence, together),
    }
