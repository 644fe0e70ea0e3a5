"""The suite: all rules, with the severities that params.yaml gives them. A check that is `off` there has no rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.settings import Validate
from pipeline.validation.class_rules import class_rules
from pipeline.validation.expectations import Rule
from pipeline.validation.file_rules import file_rules
from pipeline.validation.image_rules import image_rules, structure
from pipeline.validation.tables import Tables


def rules(
    tables: Tables,
    limits: Validate,
    *,
    folds: int,
    live: Mapping[str, int] | None,
    newest: str | None,
    suspects: Sequence[str],
    unsearched: int,
) -> list[Rule]:
    """The suite, in the order of the policy.

    Args:
        folds: of the cross-validation, each of which needs an image of every class.
        live: label to images of the live model's training data; None without a live model.
        newest: name of the newest batch; None before the first.
        suspects: ids of the images whose label is suspected, worst first.
        unsearched: images that were not compared with each other for crops.
    """
    policy = limits.policy.model_dump(by_alias=True)
    every = [
        *class_rules(tables.classes, limits, folds, live),
        *file_rules(tables.files, limits, newest),
        *image_rules(tables.images, limits, suspects, unsearched),
    ]
    order = list(policy)
    chosen = [replace(rule, severity=policy[rule.check]) for rule in every if policy[rule.check] != "off"]
    return [*structure(tables.images), *sorted(chosen, key=lambda rule: order.index(rule.check))]
