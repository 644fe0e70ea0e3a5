"""`refit predict`: what a published model says of images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
import yaml
from rich.console import Console

from pipeline import runs, runtime
from pipeline.cli import versions
from pipeline.cli.errors import clear_errors
from pipeline.cli.text import plain, shown
from pipeline.errors import DataError, RefitError
from pipeline.promotion.registry import LIVE
from pipeline.settings import load, params_file

if TYPE_CHECKING:
    from pipeline.serving.predicting import Answer

console = Console(highlight=False, soft_wrap=True)

Model = Annotated[str, typer.Option(help="Name of the classifier.")]
Version = Annotated[str, typer.Option(help="A version, or an alias: live, previous, candidate.")]


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    model: Model = "classifier",
    version: Version = LIVE,
    top: Annotated[int, typer.Option(min=1, help="So many classes, the most probable first.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each image.")] = False,
) -> None:
    """Classify images with the live model, read as training has read its own.

    A file that cannot be used is one line on stderr, and the exit status then is 65; all others are answered.
    """
    with clear_errors():
        registry = runs.registry(model)
        number = versions.resolve(registry, model, version)
        folder = registry.fetch(number)
        runtime.prepare()
        predicting = _room()
        params = folder / "params.yaml"
        read_as = yaml.safe_load(params.read_text()) if params.exists() else {}
        how = predicting.reading(read_as, load(params_file()))
        answer, classes = predicting.load(folder)
        answered, failed = 0, 0
        for found in predicting.predict(images, answer, how):
            answered += found.reason is None
            failed += found.reason is not None
            _show(found, classes, number, top, as_json)
        if not answered + failed:
            raise DataError("Expected images, found no file.", fix="name files, or folders that hold some")
        if failed:
            raise typer.Exit(RefitError.exit_status)


def _show(found: Answer, classes: Sequence[str], version: int, top: int, as_json: bool) -> None:
    best: list[dict[str, Any]] = []
    if found.probabilities is not None:
        places = np.argsort(-found.probabilities, kind="stable")[:top]
        best = [{"class": classes[place], "probability": float(found.probabilities[place])} for place in places]
    else:
        cure = f" Fix: {found.cure}." if found.cure else ""
        print(f"error: {plain(found.name)}: {found.reason}, {plain(found.detail or '')}.{cure}", file=sys.stderr)
    if as_json:
        said = {"top": best} if best else {"error": {"reason": found.reason, "detail": found.detail}}
        print(json.dumps({"image": found.name, "version": version} | said, ensure_ascii=False), flush=True)
    elif best:
        words = ", ".join(f"{shown(entry['class'])} [dim]{entry['probability']:.3f}[/]" for entry in best)
        console.print(f"{shown(found.name)}: {words}")


def _room() -> Any:
    """`serving.predicting`, with TensorFlow. Raises `RefitError` where it is not installed, as in Airflow's image."""
    try:
        with runtime.no_descriptor_2():
            import tensorflow  # noqa: F401

        from pipeline.serving import predicting
    except ModuleNotFoundError as error:
        raise RefitError(
            f"Predicting takes the package {error.name}, which is not installed here.",
            fix="run it where Refit's dependency group `data` is installed, such as the image refit-data",
        ) from None
    return predicting
