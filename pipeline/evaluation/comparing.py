"""The candidate beside the live model, on the same images: paired, so that what is hard for both cancels out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.evaluation import intervals
from pipeline.evaluation.intervals import JEFFREYS, Interval, Resampling
from pipeline.evaluation.metrics import Floats, Ints, mean_of_known

Bools = npt.NDArray[np.bool_]


def compare(
    labels: Ints,
    candidate: Sequence[str],
    live: Sequence[str],
    groups: Ints,
    *,
    classes: Sequence[str],
    live_classes: Sequence[str],
    how: Resampling,
) -> dict[str, Any]:
    """What metrics/evaluate.json says under `live`, but for the version and the number of excluded images.

    `labels` int64 [N] index `classes`; `candidate` and `live` are the names that the models answered, for a class that
    only one of them knows is wrong like any other wrong answer, as it would be in service. `groups` is int64 [N].
    """
    truth = np.array([classes[label] for label in labels], dtype=object)
    correct: Bools = np.stack([np.array(names, dtype=object) == truth for names in (candidate, live)], axis=1)
    support = np.bincount(labels, minlength=len(classes))
    recall = np.stack([_recall(correct[:, model], labels, support) for model in range(2)], axis=1)
    balanced = [mean_of_known(recall[:, model]) for model in range(2)]
    accuracy = [mean_of_known(correct[:, model].astype(np.float64)) for model in range(2)]
    mean, by_class = _intervals(correct, labels, groups, recall, support, how)
    return {
        "images": len(labels),
        "accuracy": accuracy[1],
        "balanced_accuracy": balanced[1],
        "candidate_accuracy": accuracy[0],
        "candidate_balanced_accuracy": balanced[0],
        "difference": balanced[0] - balanced[1],
        "difference_low": mean.low,
        "difference_high": mean.high,
        "per_class": {
            name: {
                "candidate_recall": float(recall[number, 0]),
                "live_recall": float(recall[number, 1]),
                "difference_low": by_class[number].low,
                "difference_high": by_class[number].high,
                "support": int(support[number]),
            }
            for number, name in enumerate(classes)
        },
        "new_classes": sorted(set(classes) - set(live_classes)),
        "dropped_classes": sorted(set(live_classes) - set(classes)),
    }


def _recall(correct: Bools, labels: Ints, support: Ints) -> Floats:
    hits = np.bincount(labels[correct], minlength=len(support))
    recall = np.full(len(support), np.nan)
    np.divide(hits, support, out=recall, where=support > 0)
    return recall


def _intervals(
    correct: Bools, labels: Ints, groups: Ints, recall: Floats, support: Ints, how: Resampling
) -> tuple[Interval, list[Interval]]:
    """Of the difference candidate minus live: of balanced accuracy, and of each class's recall."""
    unknown = Interval(float("nan"), float("nan"))
    if not len(labels):
        return unknown, [unknown] * len(support)
    classes = len(support)
    mean_draws = intervals.mean_recall_draws(correct, labels, groups, classes=classes, how=how)
    draws = intervals.recall_draws(correct, labels, groups, classes=classes, prior=JEFFREYS, how=how)
    estimate = recall[:, 0] - recall[:, 1]
    by_class = [
        intervals.around(float(estimate[c]), draws[:, c, 0] - draws[:, c, 1], how.confidence) if support[c] else unknown
        for c in range(classes)
    ]
    return intervals.around(mean_of_known(estimate), mean_draws[:, 0] - mean_draws[:, 1], how.confidence), by_class
