"""What is expected of the listed files: that they are images, each once, and of one class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd
from great_expectations.expectations.core.expect_column_mean_to_be_between import ExpectColumnMeanToBeBetween
from great_expectations.expectations.core.expect_column_values_to_not_be_in_set import ExpectColumnValuesToNotBeInSet
from great_expectations.expectations.row_conditions import Column

from pipeline.ingestion.reasons import CONFLICT, CURES, DUPLICATE
from pipeline.settings import Validate
from pipeline.validation.expectations import Broken, Rule
from pipeline.validation.tables import ACCEPTED
from pipeline.validation.verdict import EXAMPLES
from pipeline.wording import agreeing, count

FEW = 5  # a stray file or two among a few new ones are no reason to stop
# Reason of quarantine to what is wrong with such files, to follow "3 of 200 listed files".
UNREADABLE = {
    "damaged": "are damaged: not every pixel can be decoded",
    "empty": "are empty",
    "git-lfs-pointer": "hold a Git LFS pointer instead of an image",
    "html-page": "hold a web page instead of an image",
    "not-an-image": "hold no image",
    "unreadable-file": "are not readable",
    "missing-file": "are named by the labels file and missing",
    "not-a-file": "lead to no file, but a broken link, a pipe or a device",
    "no-label": "have no label",
    "unsafe-name": "have an unsafe name",
    "too-small": "are smaller than ingest.min_side",
    "too-many-pixels": "have more pixels than ingest.max_pixels",
    "too-many-bytes": "have more bytes than ingest.max_bytes",
}


def file_rules(files: pd.DataFrame, limits: Validate, newest: str | None) -> Iterator[Rule]:
    new = files[files["batch"] == newest]

    def too_many(_: list[str]) -> Broken:
        lost = new[new["unusable"] > 0]
        counts = dict(sorted(Counter(lost["status"]).items()))
        of = int((new["status"] != DUPLICATE).sum())
        return Broken(
            f"{len(lost)} of the {count(of, 'new file')} of batch {newest} cannot be used "
            f"({', '.join(f'{reason} {number}' for reason, number in counts.items())}), "
            f"more than validate.max_quarantine_share = {limits.max_quarantine_share:.0%}",
            "mend the files that data/quarantine lists, or raise validate.max_quarantine_share",
            {"share": len(lost) / of, "allowed": limits.max_quarantine_share, **counts},
            tuple(lost["item"][:EXAMPLES]),
        )

    def conflicting(items: list[str]) -> Broken:
        rows = files[files["status"] == CONFLICT].sort_values(["image_id", "item"])
        pictures = rows["image_id"].nunique()
        return Broken(
            f"{count(len(items), 'file')} with the same bytes in several classes ({count(pictures, 'picture')})",
            CURES[CONFLICT],
            {"files": len(items), "pictures": pictures},
            tuple(rows["item"][:EXAMPLES]),
        )

    def repeated(items: list[str]) -> Broken:
        return Broken(
            f"{count(len(items), 'file repeats', 'files repeat')} the bytes of another one of its class",
            CURES[DUPLICATE],
            {"files": len(items)},
            tuple(items[:EXAMPLES]),
        )

    def without(reason: str) -> Rule:
        def describe(items: list[str]) -> Broken:
            return Broken(
                f"{len(items)} of {count(len(files), 'listed file')} "
                f"{agreeing(len(items), UNREADABLE.get(reason, 'are in quarantine'))} ({reason})",
                CURES.get(reason, "refit quarantine show tells more"),
                {"files": len(items)},
                tuple(items[:EXAMPLES]),
            )

        expectation = ExpectColumnValuesToNotBeInSet(column="status", value_set=[reason])
        return Rule("unreadable", "files", expectation, describe)

    if new["unusable"].sum() > FEW:
        # A second copy of a known image is set aside too, but nothing is lost with it.
        judged = (Column("batch") == newest) & (Column("status") != DUPLICATE)
        few = ExpectColumnMeanToBeBetween(
            column="unusable", max_value=limits.max_quarantine_share, row_condition=judged
        )
        yield Rule("quarantine_share", "files", few, too_many)
    unheard_of = set(files["status"]) - {ACCEPTED, CONFLICT, DUPLICATE, *UNREADABLE}
    for reason in (*UNREADABLE, *sorted(unheard_of)):
        yield without(reason)
    for check, reason, describe in (
        ("label_conflict", CONFLICT, conflicting),
        ("exact_duplicates", DUPLICATE, repeated),
    ):
        yield Rule(check, "files", ExpectColumnValuesToNotBeInSet(column="status", value_set=[reason]), describe)
