"""`refit promote`, and what every promotion does and says."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline import files, runs
from pipeline.cli import mirroring
from pipeline.cli.errors import clear_errors
from pipeline.cli.text import shown
from pipeline.errors import PromotionRefused, TransientError
from pipeline.promotion.promote import promote as carry_out
from pipeline.report.build import build as build_report
from pipeline.runs import Run

console = Console()


def promote(
    run_id: Annotated[str, typer.Argument(help="A run, as `refit runs` lists them.")],
    reason: Annotated[
        str | None, typer.Option(help="Why; it goes into the audit log instead of the decision's summary.")
    ] = None,
) -> None:
    """Make the model of a run live, if its gate has decided so.

    Repeating it changes nothing. It is refused if the live model has changed since the decision.
    """
    with clear_errors():
        current = runs.find(run_id)
        decision = current.path / "decision.json"
        if decision.exists() and not (decided := files.read_json(decision))["promote"]:
            raise PromotionRefused(
                f"The decision on run {current.run_id} is negative: {decided['summary']}",
                fix="train a better model; the report says what would help",
            )
        runs.require_idle(current)
        promotion = promoted(current, reason)  # a refusal leaves the run as it was: it may have been promoted before
        build_report(current.path)
        runs.publish(current)
        say_outcome(current, promotion)


def promoted(current: Run, reason: str | None = None) -> dict[str, Any]:
    """Carry out the decision on a run, whichever it is; promotion.json's content."""
    registry = runs.registry(current.record["model"], current.params)
    runs.bring_inputs(current, runs.PROMOTE)
    promotion = carry_out(current.path, registry, reason=reason)
    current.update(status=runs.PROMOTED if promotion["promoted"] else runs.REFUSED)
    if promotion["promoted"]:
        mirroring.mirror(registry, current.record["model"], current.params)
    return promotion


def say_outcome(current: Run, promotion: dict[str, Any]) -> None:
    decision = files.read_json(current.path / "decision.json")
    table = Table("", "rule", "why", box=None, header_style="bold", title_justify="left")
    for rule in decision["rules"]:
        table.add_row("[green]pass[/]" if rule["passed"] else "[red]fail[/]", rule["rule"], shown(rule["explanation"]))
    console.print(table)
    colour = "green" if promotion["promoted"] else "yellow"
    console.print(f"[{colour} bold]{shown(decision['summary'])}[/]")
    if promotion["promoted"]:
        _say_version(current, promotion)
    console.print(f"Report: {shown(str(current.path / 'report.html'))}", soft_wrap=True)


def _say_version(current: Run, promotion: dict[str, Any]) -> None:
    model, version = current.record["model"], promotion["version"]
    try:
        live = runs.registry(model, current.params).pointer()
    except TransientError:  # it has answered before, so the promotion is done; this is only to tell of it
        live = None
    if live is None or live.version == version:
        console.print(f"Version [bold]{version}[/] of {model} is live.")
    else:
        console.print(
            f"Version {version} of {model} was made live in generation {promotion['generation']}; by now version "
            f"[bold]{live.version}[/] is (generation {live.generation})."
        )
