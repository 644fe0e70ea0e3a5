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
from pipeline.promotion import approval
from pipeline.promotion.approval import Approval
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

    Repeating it changes nothing. It is refused if the live model has changed since the decision. Where the decision
    asks for a person's approval, it is yours, and --reason must say why.
    """
    with clear_errors():
        current = runs.find(run_id)
        decided = decision_of(current)
        if decided is not None and not decided["promote"]:
            raise PromotionRefused(
                f"The decision on run {current.run_id} is negative: {decided['summary']}",
                fix="train a better model; the report says what would help",
            )
        runs.require_idle(current)
        answer = approval.own(reason) if decided is not None and _unanswered(current, decided) else None
        # A refusal leaves the run as it was: it may have been promoted before.
        promotion = promoted(current, reason, answer)
        build_report(current.path)
        runs.publish(current)
        say_outcome(current, promotion)


def decision_of(current: Run) -> dict[str, Any] | None:
    path = current.path / approval.DECISION
    found: dict[str, Any] | None = files.read_json(path) if path.exists() else None
    return found


def _unanswered(current: Run, decided: dict[str, Any]) -> bool:
    return approval.required(decided) and current.record["status"] != runs.PROMOTED


def promoted(
    current: Run, reason: str | None = None, answer: Approval | None = None, *, asked: str | None = None
) -> dict[str, Any]:
    """Carry out the decision on a run, whichever it is; promotion.json's content.

    `asked`: the run's status to which `answer` is one, by default that of now. Raises `PromotionRefused` if another
    answer came first.
    """
    asked = asked or current.record["status"]
    registry = runs.registry(current.record["model"], current.params)
    runs.bring_inputs(current, runs.PROMOTE)
    with runs.deciding(current):
        if answer is not None and (found := current.record["status"]) != asked:
            raise PromotionRefused(
                f"The run {current.run_id} was {found} while this answer was given.",
                fix="look at what was decided",
            )
        promotion = carry_out(current.path, registry, reason=reason, answer=answer)
        turned_down = runs.REJECTED if promotion["approval"] else runs.REFUSED
        current.update(status=runs.PROMOTED if promotion["promoted"] else turned_down)
    if promotion["promoted"]:
        mirroring.mirror(registry, current.record["model"], current.params)
    return promotion


def say_waiting(current: Run, decided: dict[str, Any]) -> None:
    console.print(
        f"[yellow bold]Waiting for approval.[/] {shown(decided['summary'])} {shown(decided['approval']['why'])}"
    )
    console.print(f"Look at it: {shown(str(current.path / 'report.html'))}", soft_wrap=True)
    console.print(f"Then: refit approve {current.run_id} --reason TEXT, with --reject to turn it down.", soft_wrap=True)


def say_outcome(current: Run, promotion: dict[str, Any]) -> None:
    decision = files.read_json(current.path / "decision.json")
    table = Table("", "rule", "why", box=None, header_style="bold", title_justify="left")
    for rule in decision["rules"]:
        table.add_row("[green]pass[/]" if rule["passed"] else "[red]fail[/]", rule["rule"], shown(rule["explanation"]))
    console.print(table)
    colour = "green" if promotion["promoted"] else "yellow"
    console.print(f"[{colour} bold]{shown(decision['summary'])}[/]")
    if promotion["approval"] and not promotion["promoted"]:
        console.print(f"[yellow bold]{shown(promotion['reason'])}[/] Nothing was changed.")
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
