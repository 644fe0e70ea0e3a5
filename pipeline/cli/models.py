"""`refit models`: the versions of a model, what is known of them, and the moves of the live pointer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline import runs
from pipeline.cli import mirroring, versions
from pipeline.cli.errors import clear_errors
from pipeline.cli.text import plain, shown
from pipeline.errors import ModelError, RefitError
from pipeline.promotion import audit, mlflow_mirror
from pipeline.promotion.card_text import figure, with_interval
from pipeline.promotion.difference import difference
from pipeline.promotion.registry import CARD, Registry

app = typer.Typer(invoke_without_command=True, help="The versions of a model. Alone: list them.")
console = Console(highlight=False, soft_wrap=True)

Model = Annotated[str, typer.Option(help="Name of the classifier.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Version = Annotated[str, typer.Argument(help="A version, or an alias: live, previous, candidate.")]


@app.callback()
def models(context: typer.Context, model: Model = "classifier", as_json: Json = False) -> None:
    """The versions of a model. Alone: list them."""
    if context.invoked_subcommand is None:
        list_models(model, as_json)


@app.command("list")
def list_models(model: Model = "classifier", as_json: Json = False) -> None:
    """List the versions of a model and the moves of its live pointer."""
    with clear_errors():
        registry = runs.registry(model)
        moves = registry.history()
        aliases = registry.aliases(moves)
        rows = [_row(registry, version, aliases) for version in registry.versions()]
        if as_json:
            _print_json(
                {"model": model, "location": registry.storage.base, "aliases": aliases, "versions": rows}
                | {"moves": [{**move, "kind": audit.kind(move)} for move in moves]}
                | {"rejections": registry.rejections()}
            )
            return
        table = Table("version", "run", "test balanced accuracy", "", box=None, header_style="bold")
        for row in rows:
            marks = ", ".join(f"[green]{name}[/]" if name == "live" else name for name in row["aliases"])
            table.add_row(str(row["version"]), shown(str(row["run_id"])), figure(row["balanced_accuracy"]), marks)
        console.print(table, soft_wrap=False)
        told = [(move["at"], _line(move)) for move in moves]
        told += [
            (found["at"], f"[dim]{found['at']}[/] {shown(audit.rejected(found))}") for found in registry.rejections()
        ]
        for _, line in sorted(told, key=lambda item: datetime.fromisoformat(item[0])):
            console.print(line)


@app.command()
def show(version: Version, model: Model = "classifier", as_json: Json = False) -> None:
    """Show what is known of a version: its card, its decision and when it was live."""
    with clear_errors():
        registry = runs.registry(model)
        number = versions.resolve(registry, model, version)
        card = registry.card(number)
        history = registry.history()
        moves = [move for move in history if move["version"] == number]
        names = [name for name, found in registry.aliases(history).items() if found == number]
        if as_json:
            _print_json(
                {"model": model, "version": number, "uri": registry.uri(number), "aliases": names}
                | {"card": card, "moves": moves, "text": _text(registry, number)}
            )
            return
        console.print(f"[bold]Version {number}[/] of {shown(model)} {' '.join(f'[green]{name}[/]' for name in names)}")
        console.print(f"[dim]{shown(registry.uri(number))}[/]\n")
        if (text := _text(registry, number)) is None:
            _print_json(card)
        else:
            print("\n".join(map(plain, text.split("\n"))))
        for move in moves:
            console.print(_line(move))


@app.command()
def diff(a: Version, b: Version, model: Model = "classifier", as_json: Json = False) -> None:
    """Compare two versions: figures with intervals, settings, counts of data, classes."""
    with clear_errors():
        registry = runs.registry(model)
        found = difference(registry, versions.resolve(registry, model, a), versions.resolve(registry, model, b))
        if as_json:
            _print_json(found)
            return
        first, second = f"version {found['a']}", f"version {found['b']}"
        table = Table("", first, second, "difference", box=None, header_style="bold")
        for name, row in found["metrics"].items():
            change = "" if row["difference"] is None else f"{row['difference']:+.3f}"
            table.add_row(name.replace("_", " "), figure(row["a"] or {}), figure(row["b"] or {}), change)
        console.print(table, soft_wrap=False)
        if not found["same_data"]:
            console.print("[dim]Each on its own held-out images; they need not be the same ones.[/]")
        _print_pairs("data", (first, second), {name: pair for name, pair in found["data"].items() if any(pair)})
        _print_pairs("images of", (first, second), found["images"])
        for word in ("appeared", "vanished"):
            if found[word]:
                console.print(f"Classes that {word}: [bold]{shown(', '.join(found[word]))}[/]")
        if found["params"]:
            _print_pairs("setting", (first, second), found["params"])
        else:
            console.print("The settings are the same.")


@app.command()
def mirror(model: Model = "classifier") -> None:
    """Tell the MLflow registry at registry.mlflow_uri again which version is live."""
    with clear_errors():
        server = mirroring.server(model)
        if server is None:
            raise RefitError("registry.mlflow_uri is not set.", fix="set it in params.yaml")
        version = mlflow_mirror.mirror(runs.registry(model), model, server)
        console.print(
            f"MLflow's alias live of {shown(model)} is at version {version}."
            if version is not None
            else f"The model {shown(model)} has no live version yet; MLflow was told nothing."
        )


def _text(registry: Registry, version: int) -> str | None:
    """card.md; None for versions made before there were cards for people."""
    try:
        return registry.text(version, "card.md")
    except ModelError:
        return None


def _row(registry: Registry, version: int, aliases: Mapping[str, int | None]) -> dict[str, Any]:
    """A version without a card that can be read is listed all the same."""
    try:
        card = json.loads(registry.storage.read(version, CARD) or b"{}")
    except ValueError:
        card = None
    if not isinstance(card, dict):
        card = {}
    return {
        "version": version,
        "run_id": card.get("run_id"),
        "created_at": card.get("created_at"),
        "aliases": [name for name, found in aliases.items() if found == version],
        "balanced_accuracy": with_interval(card.get("test", {}), "balanced_accuracy"),
        "accuracy": with_interval(card.get("test", {}), "accuracy"),
        "test_images": card.get("test", {}).get("images"),
        "uri": registry.uri(version),
    }


def _line(move: Mapping[str, Any]) -> str:
    change = f"{move['previous'] or 'none'} → {move['version']} {audit.kind(move)} by {move['by']}"
    change += audit.approved(move.get("approval"))
    run = f" (run {move['run']})" if move.get("run") else ""
    return f"[dim]{move['at']}[/] {shown(change + run)}: {shown(move['reason'])}"


def _print_pairs(title: str, versions: tuple[str, str], pairs: Mapping[str, Any]) -> None:
    if not pairs:
        return
    table = Table(title, *versions, box=None, header_style="bold")
    for name, values in pairs.items():
        table.add_row(shown(name), *("" if value is None else shown(str(value)) for value in values))
    console.print(table, soft_wrap=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))
