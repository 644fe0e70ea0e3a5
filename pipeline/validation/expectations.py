"""Row rules, as a Great Expectations checkpoint over the table of the current images.

The project that Great Expectations wants lives in a folder of the caller's, which may be temporary; nothing is
read from or written to anywhere else, and no network is used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import great_expectations as gx
import pyarrow as pa
from great_expectations.checkpoint.actions import UpdateDataDocsAction
from great_expectations.checkpoint.checkpoint import CheckpointResult
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.core.expect_column_value_lengths_to_be_between import (
    ExpectColumnValueLengthsToBeBetween,
)
from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
from great_expectations.expectations.core.expect_column_values_to_not_be_null import ExpectColumnValuesToNotBeNull
from great_expectations.expectations.expectation import Expectation

from pipeline.errors import DataError
from pipeline.settings import Validate
from pipeline.validation.verdict import EXAMPLES, Finding, Severity

COLUMNS = ("image_id", "uri", "label", "width", "height", "bytes")
SITE = Path("gx/uncommitted/data_docs/local_site")  # of the pages, below the project folder


@dataclass(frozen=True)
class Rule:
    check: str
    severity: Severity
    problem: str  # what a row that breaks it is, to follow "N of M images"
    fix: str
    expectation: Expectation


@dataclass(frozen=True)
class Outcome:
    rule: Rule
    failing: Sequence[str]  # uris of all rows that break the rule
    rows: int


def rules(limits: Validate) -> list[Rule]:
    """The suite. `short_side` is in pixels, `elongation` is long side / short side."""
    damaged = "remove data/manifest and data/features of this run and ingest again"
    found = [
        Rule("image-id", "block", "have no image id", damaged, ExpectColumnValuesToNotBeNull(column="image_id")),
        Rule(
            "image-unique",
            "block",
            "share their image id with another",
            damaged,
            ExpectColumnValuesToBeUnique(column="image_id"),
        ),
        Rule("uri", "block", "have no uri", damaged, ExpectColumnValuesToNotBeNull(column="uri")),
        Rule(
            "uri-unique",
            "block",
            "share their uri with another",
            damaged,
            ExpectColumnValuesToBeUnique(column="uri"),
        ),
        Rule(
            "label",
            "block",
            "have no label",
            "put every image into the folder of its class",
            ExpectColumnValueLengthsToBeBetween(column="label", min_value=1),
        ),
        Rule(
            "label-missing",
            "block",
            "have no label",
            "put every image into the folder of its class",
            ExpectColumnValuesToNotBeNull(column="label"),
        ),
        Rule(
            "small-image",
            "warn",
            f"have a side shorter than validate.min_side = {limits.min_side} px",
            "replace them by larger originals, or lower validate.min_side if they are meant",
            ExpectColumnValuesToBeBetween(column="short_side", min_value=limits.min_side),
        ),
        Rule(
            "aspect-ratio",
            "warn",
            f"are longer than validate.max_aspect_ratio = {limits.max_aspect_ratio:g} times their short side",
            "crop them: resized to a square, what they show is squeezed beyond recognition",
            ExpectColumnValuesToBeBetween(column="elongation", min_value=1, max_value=limits.max_aspect_ratio),
        ),
        Rule(
            "empty-file",
            "block",
            "have no bytes",
            damaged,
            ExpectColumnValuesToBeBetween(column="bytes", min_value=1),
        ),
    ]
    if limits.labels is not None:
        found.append(
            Rule(
                "allowed-labels",
                "block",
                f"have a label that is not in validate.labels ({', '.join(limits.labels)})",
                "move them to the folder of an allowed class, or add their label to validate.labels",
                ExpectColumnValuesToBeInSet(column="label", value_set=list(limits.labels)),
            )
        )
    return found


def run(table: pa.Table, suite: Sequence[Rule], project: Path) -> list[Outcome]:
    """Check every row of `table` (feature rows with `uri`) and write the pages to `project / SITE`.

    Raises `DataError` if a rule could not be checked.
    """
    frame = table.select(COLUMNS).to_pandas()
    frame["short_side"] = frame[["width", "height"]].min(axis=1)
    frame["elongation"] = frame[["width", "height"]].max(axis=1) / frame["short_side"]

    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it reports every file that it writes
    context = gx.get_context(mode="file", project_root_dir=project)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    context.enable_analytics(False)
    asset = context.data_sources.add_pandas("refit").add_dataframe_asset("images")
    validation = gx.ValidationDefinition(
        name="images",
        data=asset.add_batch_definition_whole_dataframe("current"),
        suite=context.suites.add(gx.ExpectationSuite("images", expectations=[_marked(rule) for rule in suite])),
    )
    checkpoint = gx.Checkpoint(
        name="images",
        validation_definitions=[context.validation_definitions.add(validation)],
        actions=[UpdateDataDocsAction(name="data_docs")],
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["uri"]},
    )
    result = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame})
    results = dict(_results(result))
    return [_outcome(rule, results[rule.check], frame.shape[0]) for rule in suite]


def findings(outcomes: Sequence[Outcome]) -> Iterator[Finding]:
    for outcome in outcomes:
        if outcome.failing:
            count = len(outcome.failing)
            yield Finding(
                outcome.rule.check,
                outcome.rule.severity,
                f"{count} of {outcome.rows} images {outcome.rule.problem}",
                outcome.rule.fix,
                {"failing": count, "images": outcome.rows},
                tuple(outcome.failing[:EXAMPLES]),
            )


def _marked(rule: Rule) -> Expectation:
    """The expectation with the rule's name on it, so that its result finds the way back."""
    severity = "critical" if rule.severity == "block" else "warning"
    return rule.expectation.copy(update={"meta": {"check": rule.check}, "severity": severity})


def _results(result: CheckpointResult) -> Iterator[tuple[str, ExpectationValidationResult]]:
    for run_result in result.run_results.values():
        for item in run_result.results:
            if item.expectation_config is not None:
                yield item.expectation_config.meta["check"], item


def _outcome(rule: Rule, result: ExpectationValidationResult, rows: int) -> Outcome:
    failing = [str(row["uri"]) for row in result.result.get("unexpected_index_list") or []]
    if bool(result.success) == bool(failing):
        raise DataError(
            f"The rule {rule.check} could not be checked: {result.exception_info}.",
            fix="run the stage profile again, its table lacks a column",
        )
    return Outcome(rule, failing, rows)
