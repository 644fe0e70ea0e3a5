"""Rules as a Great Expectations checkpoint over the tables of `tables.py`, and its pages.

The project that Great Expectations wants lives in a folder of the caller's, which may be temporary; nothing is
read from or written to anywhere else, and no network is used.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import great_expectations as gx
from great_expectations.checkpoint.actions import UpdateDataDocsAction
from great_expectations.checkpoint.checkpoint import CheckpointResult
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation

from pipeline.errors import DataError
from pipeline.validation.tables import Tables
from pipeline.validation.verdict import Finding, Severity

SITE = Path("gx/uncommitted/data_docs/local_site")  # of the pages, below the project folder
TABLES = ("classes", "files", "images")


class Broken(NamedTuple):
    """What there is to say of a rule that does not hold; fields as in `Finding`."""

    message: str
    fix: str
    numbers: Mapping[str, float]
    examples: Sequence[str] = ()


@dataclass(frozen=True)
class Rule:
    check: str
    table: Literal["images", "files", "classes"]
    expectation: Expectation
    # From the items of the rows that break it, in the table's order; none if the rule is about the table as a whole.
    describe: Callable[[list[str]], Broken]
    severity: Severity = "block"


def findings(rules: Sequence[Rule], tables: Tables, project: Path) -> list[Finding]:
    """Hold `tables` against `rules` and write the pages to `project / SITE`; findings in the order of the rules.

    Raises `DataError` if a rule could not be checked.
    """
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it reports every file that it writes
    context = gx.get_context(mode="file", project_root_dir=project)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    context.enable_analytics(False)
    source = context.data_sources.add_pandas("refit")
    definitions = []
    for name in TABLES:
        # A checkpoint hands one and the same data frame to all its suites, so each table goes through a file.
        file = project / f"{name}.parquet"
        getattr(tables, name).to_parquet(file)
        expectations = [_marked(number, rule) for number, rule in enumerate(rules) if rule.table == name]
        asset = source.add_parquet_asset(name, path=file)
        definition = gx.ValidationDefinition(
            name=name,
            data=asset.add_batch_definition(name),  # type: ignore[union-attr]  # GX: its stub is wrong, it is never None
            suite=context.suites.add(gx.ExpectationSuite(name, expectations=expectations)),
        )
        definitions.append(context.validation_definitions.add(definition))
    checkpoint = gx.Checkpoint(
        name="refit",
        validation_definitions=definitions,
        actions=[UpdateDataDocsAction(name="data_docs")],
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["item"]},
    )
    with warnings.catch_warnings():
        # That pandas 1.5 and SQLAlchemy 2 do not fit: which they need not, nothing here is read with SQL.
        warnings.filterwarnings("ignore", "Please be aware that pandas", UserWarning)
        results = dict(_results(context.checkpoints.add(checkpoint).run()))
    broken = [(rule, _failing(rule, results[number])) for number, rule in enumerate(rules)]
    return [Finding(rule.check, rule.severity, *rule.describe(items)) for rule, items in broken if items is not None]


def _marked(number: int, rule: Rule) -> Expectation:
    """The expectation with the rule's number on it, so that its result finds the way back."""
    severity = "critical" if rule.severity == "block" else "warning"
    return rule.expectation.copy(update={"meta": {"rule": number, "check": rule.check}, "severity": severity})


def _results(result: CheckpointResult) -> Iterator[tuple[int, ExpectationValidationResult]]:
    for run_result in result.run_results.values():
        for item in run_result.results:
            if item.expectation_config is not None:
                yield item.expectation_config.meta["rule"], item


def _failing(rule: Rule, result: ExpectationValidationResult) -> list[str] | None:
    """The items of the rows that break the rule; None if it holds."""
    # Of an expectation that could not be evaluated this is a mapping of metrics to their errors.
    if (result.exception_info or {}).get("raised_exception") is not False:
        raise DataError(
            f"The rule {rule.check} could not be checked: {result.exception_info}.",
            fix="run the stage profile again, its table lacks a column",
        )
    if result.success:
        return None
    return [str(row["item"]) for row in result.result.get("unexpected_index_list") or []]
