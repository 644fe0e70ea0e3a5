"""Figures that cannot be relied on: folds that disagree, a test set that is harder than validation promised."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from pipeline.diagnosis.cause import Cause, ramp
from pipeline.diagnosis.compared import Shares
from pipeline.diagnosis.facts import Facts


def find(facts: Facts) -> Iterator[Cause]:
    yield from _folds(facts)
    yield from _selection(facts)


def _folds(facts: Facts) -> Iterator[Cause]:
    """Score: ramp of best minus worst fold, from 0.1 to 0.3 balanced accuracy."""
    if len(facts.folds) < 2:
        return
    spread = max(facts.folds) - min(facts.folds)
    smallest = min(facts.training_groups.values())
    yield Cause(
        "folds disagree",
        ramp(spread, 0.1, 0.3),
        (
            f"Balanced accuracy is {min(facts.folds):.3f} to {max(facts.folds):.3f} over {len(facts.folds)} folds "
            f"(mean {statistics.fmean(facts.folds):.3f}).",
            f"The smallest class has {smallest} different training pictures.",
        ),
        "Few or very different pictures per class make every figure uncertain: collect more before trusting one.",
        {},
    )


def _selection(facts: Facts) -> Iterator[Cause]:
    """Score: ramp of validation minus test accuracy, from 0 to 0.2, if beyond chance."""
    if facts.test_accuracy is None or not facts.val_images:
        return
    validation = facts.kept.val_accuracy[facts.kept.best]
    shares = Shares(validation, facts.test_accuracy, (facts.val_images, facts.test_images))
    if not shares.beyond_chance:
        return
    yield Cause(
        "test worse than validation",
        ramp(shares.drop, 0, 0.2),
        (
            f"Validation accuracy is {validation:.3f} on {facts.val_images} images, test accuracy "
            f"{facts.test_accuracy:.3f} on {facts.test_images}.",
        ),
        "The test set holds pictures of another kind, or few validation images were fitted by chance: name groups "
        "(same product, same scene) so that each stays on one side, and collect more of what fails.",
        {},
    )
