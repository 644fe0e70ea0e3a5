"""`refit rollback`: the way back to an earlier version."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pipeline import runs
from pipeline.cli import mirroring
from pipeline.cli.errors import clear_errors
from pipeline.errors import TransientError
from pipeline.promotion.rollback import roll_back

console = Console(soft_wrap=True)


def rollback(
    reason: Annotated[str, typer.Option(help="Why; it goes into the audit log.")],
    model: Annotated[str, typer.Option(help="Name of the classifier.")] = "classifier",
    to: Annotated[str | None, typer.Option(help="A version that was live before, or the alias previous.")] = None,
) -> None:
    """Make an earlier version live again, after verifying its checksums.

    Without --to it goes back to the version before the live one; a second rollback goes one further back, never
    forward to a version that was rolled back from. Name such a version with --to to bring it back.
    """
    with clear_errors():
        registry = runs.registry(model)
        done = roll_back(registry, model, to=to, reason=reason)
        if done.version == done.before:
            console.print(f"Version [bold]{done.version}[/] of {escape(model)} is live already; nothing was changed.")
        else:
            console.print(
                f"Version [bold]{done.version}[/] of {escape(model)} is live (was {done.before}). Its checksums "
                f"and the pointer, generation {done.generation}, are verified."
            )
        mirroring.mirror(registry, model)
        with suppress(TransientError):  # the rollback is done: "try again" would go one version further back
            further = registry.alias("previous")
            console.print(
                f"[dim]A further rollback leads to version {further}.[/]"
                if further is not None
                else "[dim]Nothing lies further back.[/]"
            )
