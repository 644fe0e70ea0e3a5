"""`refit export`: a published model to take away."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline import runs, runtime
from pipeline.cli import versions
from pipeline.cli.errors import clear_errors
from pipeline.cli.predict import Model, Version
from pipeline.cli.text import shown
from pipeline.errors import RefitError
from pipeline.promotion.registry import LIVE

console = Console(highlight=False, soft_wrap=True)


class Form(StrEnum):
    SAVED_MODEL = "saved_model"
    TFLITE = "tflite"
    ONNX = "onnx"
    KERAS = "keras"


def export(
    form: Annotated[Form, typer.Option(help="saved_model is a folder, the others are files.")],
    to: Annotated[Path, typer.Option(metavar="PATH", help="What to write; it must not exist.")],
    model: Model = "classifier",
    version: Version = LIVE,
) -> None:
    """Copy the live model out, or convert it, once its answers are shown to be the same."""
    with clear_errors():
        registry = runs.registry(model)
        number = versions.resolve(registry, model, version)
        folder = registry.fetch(number)
        runtime.prepare(backend="tensorflow")
        try:
            from pipeline.serving import exporting
        except ModuleNotFoundError as error:
            raise RefitError(
                f"Exporting takes the package {error.name}, which is not installed here.",
                fix="run it where Refit's dependency group `train` is installed, such as the image refit-train-cpu",
            ) from None
        difference = exporting.write(folder, form.value, to)
        console.print(
            f"Version [bold]{number}[/] of {shown(model)} is at {shown(str(to))}; its answers to known images differ "
            f"by {difference:.1g} at most."
        )
