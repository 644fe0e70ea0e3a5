"""`refit reference`: what every profile compares with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pipeline.cli.errors import clear_errors

app = typer.Typer(no_args_is_help=True, help="ImageNet's statistics, which every profile compares with.")
console = Console()


@app.callback()
def reference() -> None:
    """ImageNet's statistics, which every profile compares with."""


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of ImageNet images; only numbers are kept.")],
    source: Annotated[str, typer.Option(help="Which images they are, in words.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write to; default: where Refit reads them.")] = None,
) -> None:
    """Measure a sample of ImageNet anew; needed when the definitions of the features have changed."""
    with clear_errors():
        # Imported late: the environment of a scheduler has no TensorFlow, and other commands need none.
        from pipeline.profiling.imagenet import build as builder
        from pipeline.profiling.imagenet import reference as references

        target = output or references.PATH.parent
        built = builder.build(folder, source=source, output=target, processes=os.cpu_count() or 1)
        console.print(f"{built.images} images measured into {escape(str(target))}.", soft_wrap=True)
