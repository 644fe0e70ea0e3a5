"""The candidate beside the live model, on the same images: paired, so that what is hard for both cancels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.evaluation import intervals, metrics
from pipeline.evaluation.intervals import UNKNOWN, Interval, Resampling
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
    """What metrics/evaluate.json says under `live`, without the version, the excluded images and `log_losses`.

    `labels` int64 [N] index `classes`; `candidate` and `live` are the names that the models answered, for a class that
    only one of them knows is wrong like any other wrong answer, as it would be in service. `groups` is int64 [N].
    """
    truth = np.array([classes[label] for label in labels], dtype=object)
    correct: Bools = np.stack([np.array(names, dtype=object) == truth for names in (candidate, live)], axis=1)
    accuracy = [metrics.share_of(right) for right in correct.T]
    of_accuracy = intervals.difference(correct, groups, how.confidence)
    whole = _balanced(correct, labels, groups, len(classes), how)
    # That the live model is wrong about classes that it does not know says nothing of either.
    known = np.array([name in live_classes for name in classes], bool)[labels]
    of_known = whole if known.all() else _balanced(correct[known], labels[known], groups[known], len(classes), how)
    together = how.together(whole.classes)
    return {
        "images": len(labels),
        "accuracy": accuracy[1],
        "balanced_accuracy": whole.balanced[1],
        "candidate_accuracy": accuracy[0],
        "candidate_balanced_accuracy": whole.balanced[0],
        "accuracy_difference": accuracy[0] - accuracy[1],
        "accuracy_difference_low": of_accuracy.low,
        "accuracy_difference_high": of_accuracy.high,
        **whole.difference(),
        "known": {"classes": of_known.classes, "images": of_known.images, **of_known.difference()},
        "mcnemar": mcnemar(correct),
        "per_class": {
            name: _of_class(correct[labels == number], groups[labels == number], how.confidence, together)
            for number, name in enumerate(classes)
        },
        "new_classes": sorted(set(classes) - set(live_classes)),
        "dropped_classes": sorted(set(live_classes) - set(classes)),
    }


@dataclass(frozen=True)
class _Balanced:
    """Balanced accuracy of both models, the candidate's first, on `images` of `classes` that have some."""

    classes: int
    images: int
    balanced: tuple[float, float]
    interval: Interval  # of the difference

    def difference(self) -> dict[str, float]:
        difference = self.balanced[0] - self.balanced[1]
        return {"difference": difference, "difference_low": self.interval.low, "difference_high": self.interval.high}


def _balanced(correct: Bools, labels: Ints, groups: Ints, classes: int, how: Resampling) -> _Balanced:
    support = np.bincount(labels, minlength=classes)
    ours, theirs = (mean_of_known(_recall(right, labels, support)) for right in correct.T)
    interval = UNKNOWN
    if len(labels):
        place = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        draws = intervals.mean_recall_draws(correct, labels, place, classes=classes, how=how)
        interval = intervals.central(ours - theirs, draws[:, 0] - draws[:, 1], how)
    return _Balanced(int(np.count_nonzero(support)), len(labels), (ours, theirs), interval)


def _of_class(correct: Bools, groups: Ints, confidence: float, together: float) -> dict[str, Any]:
    return {
        "candidate_recall": metrics.share_of(correct[:, 0]),
        "live_recall": metrics.share_of(correct[:, 1]),
        **differences(correct, groups, confidence, together),
        "support": len(correct),
    }


def differences(correct: Bools, groups: Ints, confidence: float, together: float) -> dict[str, float]:
    """Ends of the intervals of a class's or slice's difference: by itself, and with all others taken `together`."""
    alone, with_all = (intervals.difference(correct, groups, chosen) for chosen in (confidence, together))
    return {
        "difference_low": alone.low,
        "difference_high": alone.high,
        "difference_low_all": with_all.low,
        "difference_high_all": with_all.high,
    }


def mcnemar(correct: Bools) -> dict[str, Any]:
    """McNemar's test, exact and two-sided, of bool [N, 2]: whether the images that only one model gets right fall to
    both alike. It counts images, so copies of one picture make it surer than it may be; the intervals do not.
    """
    only = [int(np.count_nonzero(correct[:, one] & ~correct[:, 1 - one])) for one in range(2)]
    p_value = float(stats.binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0
    return {"only_candidate": only[0], "only_live": only[1], "p_value": p_value if len(correct) else float("nan")}


def log_losses(
    labels: Ints, candidate: Floats, live: Floats, *, classes: Sequence[str], live_classes: Sequence[str]
) -> dict[str, Any]:
    """Both models' log loss, each over its own classes, on the images of classes that both know; NaN if there are none.

    A class that the live model does not know has no probability there: its loss would be the clipping's, not the
    model's. `candidate` float [N, C] and `live` float [N, classes of live] answer the same images.
    """
    number = {name: place for place, name in enumerate(live_classes)}
    theirs = np.array([number.get(classes[label], -1) for label in labels], np.int64)
    known = theirs >= 0
    return {
        "log_loss": metrics.log_loss(theirs[known], live[known]),
        "candidate_log_loss": metrics.log_loss(labels[known], candidate[known]),
        "log_loss_images": int(np.count_nonzero(known)),
    }


def _recall(correct: Bools, labels: Ints, support: Ints) -> Floats:
    hits = np.bincount(labels[correct], minlength=len(support))
    recall = np.full(len(support), np.nan)
    np.divide(hits, support, out=recall, where=support > 0)
    return recall
