"""What is expected of the classes: how many, how large, how alike, and the same as the live model knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pandas as pd
from great_expectations.expectations.core.expect_column_distinct_values_to_contain_set import (
    ExpectColumnDistinctValuesToContainSet,
)
from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
from great_expectations.expectations.core.expect_table_row_count_to_be_between import ExpectTableRowCountToBeBetween
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from pipeline.settings import Validate
from pipeline.validation.expectations import Broken, Rule
from pipeline.wording import count, names, sizes, some


def class_rules(classes: pd.DataFrame, limits: Validate, folds: int, live: Mapping[str, int] | None) -> Iterator[Rule]:
    images = dict(zip(classes["item"], classes["images"].tolist(), strict=True))
    labels = list(images)

    def too_few_classes(_: list[str]) -> Broken:
        found = f"only the class {labels[0]!r}" if len(labels) == 1 else count(len(labels), "class", "classes")
        return Broken(
            f"found {found}, expected at least {limits.min_classes} classes",
            "put the images into one folder per class and name the folder above them as the source",
            {"classes": len(labels), "min_classes": limits.min_classes},
        )

    def too_small(items: list[str]) -> Broken:
        few = {label: images[label] for label in items}
        fix = f"add images of {names(few)}"
        affordable = min(few.values())
        if affordable >= 2:
            parts = [*(f"fold-{number}" for number in range(affordable)), "final"]
            fix += f", or lower the folds with --set 'train.parts=[{', '.join(parts)}]'"
        return Broken(f"{sizes(few)}, fewer than the {folds} folds", fix, few)

    def small(items: list[str]) -> Broken:
        few = {label: images[label] for label in items}
        return Broken(
            f"{sizes(few)}, fewer than validate.min_per_class = {limits.min_per_class}",
            f"add images of {names(few)}; what is said about a small class is uncertain",
            few,
        )

    def imbalanced(_: list[str]) -> Broken:
        largest, smallest = max(labels, key=images.__getitem__), min(labels, key=images.__getitem__)
        ratio = images[largest] / images[smallest]
        return Broken(
            f"{largest!r} has {ratio:.0f} times the images of {smallest!r} "
            f"({images[largest]} and {images[smallest]}), more than validate.max_imbalance = {limits.max_imbalance:g}",
            f"add images of {smallest!r}, keep class_balance in training and judge by the balanced accuracy",
            {"ratio": ratio},
        )

    def similar(items: list[str]) -> Broken:
        plain = dict(zip(classes["item"], classes["plain"], strict=True))
        groups: dict[str, list[str]] = {}
        for label in sorted(items, key=lambda label: (-images[label], label)):
            groups.setdefault(plain[label], []).append(label)
        likely = some([f"{', '.join(map(repr, group[1:]))} to {group[0]!r}" for group in groups.values()])
        return Broken(
            "labels that differ in case, spaces, hyphens or encoding only: "
            + some([" and ".join(f"{label!r} ({images[label]})" for label in group) for group in groups.values()]),
            f"if they mean one class, move the images of {likely}",
            {label: images[label] for label in items},
        )

    def vanished(_: list[str]) -> Broken:
        gone = {label: number for label, number in (live or {}).items() if label not in images}
        return Broken(
            f"the live model knows {names(gone)}, of which there is no image any more",
            "restore the images, or let the new model forget the class",
            gone,
        )

    def added(items: list[str]) -> Broken:
        return Broken(
            f"the live model does not know {names(items)}",
            "none, if the class is meant; else move its images to the class they belong to",
            {label: images[label] for label in items},
        )

    def rule(check: str, expectation: Expectation, describe: Callable[[list[str]], Broken]) -> Rule:
        return Rule(check, "classes", expectation, describe)

    yield rule("class_count", ExpectTableRowCountToBeBetween(min_value=limits.min_classes), too_few_classes)
    # The smallest classes break the first of the two only, so that each is named once.
    yield rule("class_size", ExpectColumnValuesToBeBetween(column="images", min_value=folds), too_small)
    if folds < limits.min_per_class:
        enough = ExpectColumnValuesToBeBetween(
            column="images", min_value=limits.min_per_class, row_condition=Column("images") >= folds
        )
        yield rule("small_class", enough, small)
    balanced = ExpectColumnValuesToBeBetween(column="times_fewer", max_value=limits.max_imbalance)
    yield rule("imbalance", balanced, imbalanced)
    yield rule("similar_labels", ExpectColumnValuesToBeUnique(column="plain"), similar)
    if live is not None:
        known = sorted(live)
        yield rule("class_vanished", ExpectColumnDistinctValuesToContainSet(column="item", value_set=known), vanished)
        yield rule("class_added", ExpectColumnValuesToBeInSet(column="item", value_set=known), added)
