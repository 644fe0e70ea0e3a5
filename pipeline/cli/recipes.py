"""`refit recipes`: what training can go through."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from pipeline.cli.errors import clear_errors
from pipeline.settings import params_file, parse, read_params, with_overrides
from pipeline.training import recipes as catalogue

console = Console(highlight=False)


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show the phases of this recipe.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="With this change of params.yaml.")
    ] = None,
) -> None:
    """List the recipes that train.recipe accepts, or all that the phases of one do."""
    with clear_errors():
        if name is None:
            _list()
        else:
            _show(name, overrides or [])


def _list() -> None:
    table = Table("recipe", "phases", "in words", box=None, header_style="bold")
    for name, recipe in catalogue.RECIPES.items():
        table.add_row(name, ", ".join(phase.name for phase in recipe.phases), recipe.summary)
    console.print(table)
    console.print("refit recipes NAME shows what its phases do; `train.phases` changes it.")


def _show(name: str, overrides: list[str]) -> None:
    params = read_params(params_file())
    recipe = catalogue.resolve(parse(with_overrides(params, [f"train.recipe={name}", *overrides])).train)
    table = Table("train.phases.…", *(phase.name for phase in recipe.phases), box=None, header_style="bold")
    for field in fields(catalogue.Phase)[1:]:
        table.add_row(field.name, *(_text(getattr(phase, field.name)) for phase in recipe.phases))
    console.print(table)
    console.print(f"Hidden layers of the head: {list(recipe.hidden) or 'none'}.")


def _text(value: Any) -> str:
    if isinstance(value, BaseModel):
        return ", ".join(f"{key}: {item}" for key, item in value.model_dump(by_alias=True).items())
    return "as augment.preset" if value is None else str(value)
