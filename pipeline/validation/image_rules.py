"""What is expected of every image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from great_expectations.expectations.core.expect_column_value_lengths_to_be_between import (
    ExpectColumnValueLengthsToBeBetween,
)
from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_be_null import ExpectColumnValuesToBeNull
from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
from great_expectations.expectations.core.expect_column_values_to_not_be_null import ExpectColumnValuesToNotBeNull
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from pipeline.settings import Validate
from pipeline.validation.expectations import Broken, Rule
from pipeline.validation.verdict import EXAMPLES
from pipeline.wording import agreeing, count, names, some

TABLE = "table"  # the check of Refit's own tables, which no policy turns off


def structure(images: pd.DataFrame) -> Iterator[Rule]:
    """What Refit itself guarantees of its tables; everything else rests on it."""
    damaged = "remove data/manifest and data/features of this run and ingest again"
    folders = "put every image into the folder of its class"
    for problem, fix, expectation in (
        ("have no image id", damaged, ExpectColumnValuesToNotBeNull(column="image_id")),
        ("share an image id", damaged, ExpectColumnValuesToBeUnique(column="image_id")),
        ("have no uri", damaged, ExpectColumnValuesToNotBeNull(column="uri")),
        ("share a uri", damaged, ExpectColumnValuesToBeUnique(column="uri")),
        ("have no label", folders, ExpectColumnValuesToNotBeNull(column="label")),
        ("have an empty label", folders, ExpectColumnValueLengthsToBeBetween(column="label", min_value=1)),
        ("have no bytes", damaged, ExpectColumnValuesToBeBetween(column="bytes", min_value=1)),
    ):
        yield _image_rule(TABLE, problem, fix, expectation, len(images))


def image_rules(images: pd.DataFrame, limits: Validate, suspects: Sequence[str], unsearched: int) -> Iterator[Rule]:
    total = len(images)
    if limits.labels is not None:
        yield _allowed_labels(images, limits.labels)
    yield _image_rule(
        "small_image",
        f"have a side shorter than validate.min_side = {limits.min_side} px",
        "replace them by larger originals, or lower validate.min_side if they are meant",
        ExpectColumnValuesToBeBetween(column="short_side", min_value=limits.min_side),
        total,
    )
    yield _image_rule(
        "aspect_ratio",
        f"are longer than validate.max_aspect_ratio = {limits.max_aspect_ratio:g} times the short side",
        "crop them: resized to a square, what they show is squeezed beyond recognition",
        ExpectColumnValuesToBeBetween(column="elongation", min_value=1, max_value=limits.max_aspect_ratio),
        total,
    )
    for check, problem in (
        ("blank_image", "are blank: one colour all over"),
        ("dark_image", "are nearly black, unlike the others"),
        ("bright_image", "are nearly white, unlike the others"),
        ("blurred_image", "are far less sharp than the others"),
    ):
        yield _image_rule(
            check,
            problem,
            "look at them and delete those that do not show their class",
            ExpectColumnValuesToBeInSet(column=check.removesuffix("_image"), value_set=[False]),
            total,
        )
    yield from _near_duplicates(images, unsearched)
    yield _suspected_labels(images, suspects)


def _image_rule(check: str, problem: str, fix: str, expectation: Expectation, total: int) -> Rule:
    """A rule about single images. `problem`: what those do that break it, to follow "3 of 200 images"."""

    def describe(items: list[str]) -> Broken:
        return Broken(
            f"{len(items)} of {count(total, 'image')} {agreeing(len(items), problem)}",
            fix,
            {"failing": len(items), "images": total},
            tuple(items[:EXAMPLES]),
        )

    return Rule(check, "images", expectation, describe)


def _allowed_labels(images: pd.DataFrame, allowed: Sequence[str]) -> Rule:
    strange = images[~images["label"].isin(allowed)]
    return _image_rule(
        "allowed_labels",
        f"have a label that is not in validate.labels: {names(strange['label'].dropna().unique())}",
        "move them to the folder of an allowed class, or add their label to validate.labels",
        ExpectColumnValuesToBeInSet(column="label", value_set=list(allowed)),
        len(images),
    )


def _near_duplicates(images: pd.DataFrame, unsearched: int) -> Iterator[Rule]:
    # Said with every finding: what was not looked for may be there.
    rest = f"; {count(unsearched, 'image')} not searched for crops" if unsearched else ""

    def contradicting(items: list[str]) -> Broken:
        found = _of(images, items).sort_values(["picture", "uri"])
        first = found[found["picture"] == found["picture"].iloc[0]]
        named = [f"{uri} ({label!r})" for uri, label in zip(first["uri"], first["label"], strict=True)]
        pictures = found["picture"].nunique()
        return Broken(
            f"{count(pictures, 'picture')} in several classes, as near duplicates: {some(named)}{rest}",
            "one of the labels is wrong: keep each picture in the class that it belongs to",
            {"pictures": pictures, "images": len(items), "unsearched": unsearched},
            tuple(found["uri"][:EXAMPLES]),
        )

    def repeated(items: list[str]) -> Broken:
        found = _of(images, items).sort_values(["picture", "uri"])
        pictures = found["picture"].nunique()
        return Broken(
            f"{len(items)} images are near duplicates of each other and show {count(pictures, 'picture')}: "
            f"stored again, re-encoded, resized, cropped, mirrored or brightened{rest}",
            "none is needed, they stay on one side of the split and flatter no figure; to train faster, keep the "
            "best of each" + ("; raise profile.near_duplicate_searched to search more" if unsearched else ""),
            {"pictures": pictures, "images": len(items), "unsearched": unsearched},
            tuple(found["uri"][:EXAMPLES]),
        )

    yield Rule(
        "near_duplicates",
        "images",
        ExpectColumnValuesToBeBetween(column="classes_of_copies", max_value=1),
        contradicting,
    )
    alone = ExpectColumnValuesToBeBetween(column="copies", max_value=1, row_condition=Column("classes_of_copies") == 1)
    yield Rule("near_duplicates", "images", alone, repeated)


def _suspected_labels(images: pd.DataFrame, worst_first: Sequence[str]) -> Rule:
    rank = {image_id: number for number, image_id in enumerate(worst_first)}

    def describe(items: list[str]) -> Broken:
        found = _of(images, items)
        found = found.assign(rank=found["image_id"].map(rank)).sort_values("rank")
        worst = found.iloc[0]
        return Broken(
            f"{count(len(items), 'image looks', 'images look')} like another class than their label says, most of all "
            f"{worst['uri']} ({worst['label']!r}, looks like {worst['suggested_label']!r})",
            "look at them, the page shows them as pictures; move those that are wrong to the class they belong to",
            {"suspected": len(items), "images": len(images)},
            tuple(found["uri"][:EXAMPLES]),
        )

    return Rule("suspected_labels", "images", ExpectColumnValuesToBeNull(column="suggested_label"), describe)


def _of(images: pd.DataFrame, items: list[str]) -> pd.DataFrame:
    return images[images["uri"].isin(items)]
