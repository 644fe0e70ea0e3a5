"""How far a model's probabilities can be trusted: reliability, what chance alone would make of it, and temperature.

Shapes as in `metrics`; `groups` int64 [N], 0 … G-1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import Floats, Ints

NOISE = 0.95  # quantile


def bins(labels: Ints, probabilities: Floats) -> list[dict[str, Any]]:
    """The reliability curve: of each bin of confidence that has images, its edges, their number, mean confidence and
    accuracy. The images' share times |accuracy - confidence|, added up, is the calibration error."""
    number, gaps = metrics.calibration_gaps(labels, probabilities)
    images = np.bincount(number, minlength=metrics.CALIBRATION_BINS)
    confidence = np.bincount(number, weights=probabilities.max(axis=1), minlength=len(images))
    gap = np.bincount(number, weights=gaps, minlength=len(images))
    return [
        {
            "low": n / len(images),
            "high": (n + 1) / len(images),
            "images": int(images[n]),
            "confidence": float(confidence[n] / images[n]),
            "accuracy": float((confidence[n] + gap[n]) / images[n]),
        }
        for n in np.flatnonzero(images).tolist()
    ]


def noise(probabilities: Floats, groups: Ints, *, resamples: int, seed: int) -> float:
    """The calibration error that a perfectly calibrated model exceeds on these images in 5 % of cases; NaN without any.

    Consistency resampling (Bröcker & Smith, Increasing the reliability of reliability diagrams, 2007; Vaicenavicius et
    al. 2019): whether answers are right is drawn from the model's own confidence. Images of one group share the draw,
    since copies of one picture are right or wrong together.
    """
    if not len(groups):
        return float("nan")
    confidence = probabilities.max(axis=1)
    number = metrics.calibration_gaps(np.zeros(len(groups), np.int64), probabilities)[0]
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    confidence, place = confidence[order], np.unique(groups, return_inverse=True)[1][order]
    count = int(place.max()) + 1
    generator = np.random.default_rng(seed)
    errors = np.empty(resamples)
    for i in range(resamples):
        gaps = (generator.random(count)[place] < confidence) - confidence
        errors[i] = np.abs(np.add.reduceat(gaps, starts)).sum() / len(groups)
    return float(np.quantile(errors, NOISE))


def uncalibrated(probabilities: Floats, temperature: float) -> Floats:
    """What the model would answer with temperature 1, float64 [N, C].

    Its logits were divided by the temperature, so the logarithms of its probabilities times the temperature are the
    logits from before, but for a constant.
    """
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)) * temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    before: Floats = raised / raised.sum(axis=1, keepdims=True)
    return before
