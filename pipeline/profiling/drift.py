"""Do new images look like those before them? Every numeric feature and the mix of classes, in one permutation test.

Distances are compared with what chance gives at these sample sizes (permutation.py), so a small batch is not called
drift for being small, and the chance of any false alarm, over all features and comparisons, is at most alpha. With many
images the smallest difference becomes significant, so one that matters is asked for as well.

There are two comparisons. `live`: all images that came after the live model was trained, against its training data;
small batches add up there. `previous`: the newest batch against the one before it, which also finds a sudden change
while there is no live model.

The test takes images, or the groups that it is told, for independent draws. A batch that is one burst of similar
pictures without being near duplicates (one afternoon, one camera) is rightly found to differ from the others, and
`min_distance` decides how much of that is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.profiling import features, permutation

LIVE, PREVIOUS = "live", "previous"
LABEL = "label"

# Fewer images are seldom independent draws (one scene, one sitting), whatever they are drawn from.
MIN_IMAGES = 10
# The batch before is filled up with earlier ones to this size: below it, it would limit what can be found, not the
# newest batch.
PREVIOUS_IMAGES = 200
# More images are sampled. At 10 000 against 100 000 chance reaches a distance of 0.03, far below what matters, a
# class of 0.1 % that has vanished is still found, and the test takes some seconds.
NEW_SAMPLE, REFERENCE_SAMPLE = 10_000, 100_000
DRAWS = 999  # at least; p-values are multiples of 1 / (draws + 1)
SEED = 20031
NAMED = 3  # classes in one sentence
SURPRISING = 3.0  # standard deviates; a class's change is named from there
FACTOR = 2.0  # a class with half or twice its share matters, however small the class

Groups = Mapping[str, str]


@dataclass(frozen=True)
class Drift:
    against: str  # LIVE or PREVIOUS
    feature: str  # LABEL is the mix of classes
    distance: float  # 0-1: Kolmogorov-Smirnov, of the mix of classes total variation
    threshold: float  # 0-1: the distance above which a feature has drifted; see `compare`
    p_value: float  # 0-1, adjusted for all features and comparisons
    drifted: bool
    detail: str | None  # of what has drifted: a sentence without a full stop


def new_rows(table: pa.Table, training: pa.Table) -> pa.Table:
    """Rows of the batches that came after the live model was trained: those with no image that it was trained on.

    Not simply all images missing from its training: its held-out test images are missing there too.
    """
    trained = pc.is_in(table["image_id"], value_set=training["image_id"].combine_chunks())
    old = pc.unique(table["batch"].filter(trained))
    return table.filter(pc.invert(pc.is_in(table["batch"], value_set=old)))


def previous_rows(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows of the newest batch that brought images, and of the one before it and so on till `PREVIOUS_IMAGES`.

    The second is empty if the newest batch is the first.
    """
    sizes = {item["values"]: item["counts"] for item in pc.value_counts(table["batch"]).to_pylist()}
    newest, *earlier = sorted(sizes, key=int, reverse=True)
    before: list[str] = []
    for batch in earlier:
        if sum(sizes[name] for name in before) < PREVIOUS_IMAGES:
            before.append(batch)
    return (
        table.filter(pc.equal(table["batch"], newest)),
        table.filter(pc.is_in(table["batch"], value_set=pa.array(before, pa.string()))),
    )


def all_comparisons(
    table: pa.Table, training: pa.Table | None, *, alpha: float, min_distance: float, groups: Groups | None = None
) -> list[Drift]:
    """Both comparisons, with a false-alarm rate of at most `alpha` over all they test.

    Args:
        table: feature rows of the current images, at least one; `batch` is the one that an image first came with.
        training: feature rows that the live model was trained on; None without a live model.
        groups: image id to the group of those images that belong together; others stand for themselves.
    """
    pairs = {PREVIOUS: previous_rows(table)}
    if training is not None:
        pairs = {LIVE: (new_rows(table, training), training)} | pairs
    pairs = {against: sides for against, sides in pairs.items() if min(map(len, sides)) >= MIN_IMAGES}
    found = [
        compare(*sides, against=against, alpha=alpha / len(pairs), min_distance=min_distance, groups=groups)
        for against, sides in pairs.items()
    ]
    return [replace(item, p_value=min(1.0, item.p_value * len(pairs))) for items in found for item in items]


def compare(
    new: pa.Table,
    reference: pa.Table,
    *,
    against: str,
    alpha: float,
    min_distance: float,
    groups: Groups | None = None,
) -> list[Drift]:
    """One `Drift` for each of `features.NUMERIC` and one for `label`; none if a side has fewer than `MIN_IMAGES`.

    A feature has drifted when its adjusted p-value is at most `alpha` and its distance at least `min_distance`; its
    threshold is the larger of that and of the distance that chance exceeds at a rate of `alpha` in any feature.

    The mix of classes is tested twice, by the total variation, which finds many small changes, and by the class that
    has changed most, which finds one that is missing. The threshold is the total variation's. A change matters
    if the total variation is at least `min_distance` or a class has half or twice the share that it had.
    """
    if min(len(new), len(reference)) < MIN_IMAGES:
        return []
    new, reference = _sample(new, NEW_SAMPLE), _sample(reference, REFERENCE_SAMPLE)
    both = pa.concat_tables([side.select(["image_id", LABEL, *features.NUMERIC]) for side in (new, reference)])
    is_new = np.arange(len(both)) < len(new)
    labels, classes = np.unique(both[LABEL].to_numpy().astype(str), return_inverse=True)
    judged = _judge(both, is_new, classes, groups or {}, alpha)

    found = []
    for number, name in enumerate(features.NUMERIC):
        distance, p_value = float(judged.real[number]), float(judged.p_values[number])
        drifted = p_value <= alpha and distance >= min_distance
        detail = _medians(new[name], reference[name]) if drifted else None
        threshold = _threshold(judged, number, min_distance)
        found.append(Drift(against, name, distance, threshold, p_value, drifted, detail))

    distance, p_value = float(judged.real[-2]), float(judged.p_values[-2:].min())
    changes = _changes(labels, classes, is_new)
    drifted = p_value <= alpha and (distance >= min_distance or any(change.large for change in changes))
    detail = _sentence(changes) if drifted else None
    threshold = _threshold(judged, -2, min_distance)
    return [*found, Drift(against, LABEL, distance, threshold, p_value, drifted, detail)]


def _sample(table: pa.Table, size: int) -> pa.Table:
    if len(table) <= size:
        return table
    return table.take(np.sort(np.random.default_rng(SEED).choice(len(table), size, replace=False)))


def _judge(
    both: pa.Table, is_new: npt.NDArray[np.bool_], classes: permutation.Indices, groups: Groups, alpha: float
) -> permutation.Judgement:
    """Of the numeric features, the total variation of the classes and the class that has changed most."""
    codes = [permutation.binned(both[name].to_numpy()) for name in features.NUMERIC]
    chunks = permutation.draws(
        is_new,
        _clusters(both["image_id"].to_pylist(), groups),
        count=max(DRAWS, math.ceil(5 / alpha)),
        seed=SEED,
        chunk=max(1, permutation.CELLS // max(permutation.BINS, int(classes.max()) + 1)),
    )
    statistics = [
        np.stack(
            [
                *(permutation.kolmogorov_smirnov(each, chosen) for each in codes),
                permutation.total_variation(classes, chosen),
                permutation.surprises(classes, chosen).max(axis=1),
            ]
        )
        for chosen in chunks
    ]
    return permutation.judge(np.concatenate(statistics, axis=1), alpha)


def _threshold(judged: permutation.Judgement, number: int, min_distance: float) -> float:
    return min(1.0, max(float(judged.critical[number]), min_distance))


def _clusters(image_ids: Sequence[str], groups: Groups) -> permutation.Indices:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(groups.get(image_id, image_id), len(numbers)) for image_id in image_ids])


def _medians(new: pa.ChunkedArray, reference: pa.ChunkedArray) -> str:
    now, before = (_figure(float(np.median(side.to_numpy()))) for side in (new, reference))
    return f"median {now}, {before} before"


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class _Change:
    label: str
    now: float  # share of the class, 0-1
    before: float

    @property
    def large(self) -> bool:
        return max(self.now, self.before) >= FACTOR * min(self.now, self.before)

    def __str__(self) -> str:
        now, before = (f"{_figure(100 * share)} %" for share in (self.now, self.before))
        if not self.before:
            return f"class {self.label!r} is new and makes up {now} of the new images"
        if not self.now:
            return f"no new image is of class {self.label!r}, {before} before"
        return f"class {self.label!r} makes up {now} of the new images, {before} before"


def _changes(
    labels: npt.NDArray[np.str_], classes: permutation.Indices, is_new: npt.NDArray[np.bool_]
) -> list[_Change]:
    """Of the class whose change surprises most and of others that surprise, the most surprising first."""
    rows = np.flatnonzero(is_new)
    surprises = permutation.surprises(classes, permutation.Draws(rows, np.zeros_like(rows), 1))[0]
    now, before = (np.bincount(classes[side], minlength=len(labels)) / side.sum() for side in (is_new, ~is_new))
    return [
        _Change(str(labels[number]), float(now[number]), float(before[number]))
        for number in np.argsort(-surprises, kind="stable")
        if surprises[number] >= min(SURPRISING, surprises.max())
    ]


def _sentence(changes: Sequence[_Change]) -> str:
    more = f" and {len(changes) - NAMED} more" if len(changes) > NAMED else ""
    return "; ".join(map(str, changes[:NAMED])) + more
