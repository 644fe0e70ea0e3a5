"""`refit models verify`: whether the versions that matter are still as published."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from pipeline import runs
from pipeline.cli.errors import clear_errors
from pipeline.cli.text import shown
from pipeline.errors import ModelError
from pipeline.promotion.registry import LIVE, PREVIOUS
from pipeline.runs import Run
from pipeline.settings import load, params_file

console = Console(highlight=False, soft_wrap=True)


def verify(
    model: Annotated[str | None, typer.Option(help="Name of the classifier; default: all.")] = None,
) -> None:
    """Check the files of the live and the previous version against their checksums, of one model or of all.

    Exit status 65 if any is damaged or missing, 75 if a registry is empty that was not. The last line printed is JSON.
    """
    with clear_errors():
        models: dict[str, list[Run]] = {load(params_file()).promote.model: []}
        for run, record in runs.recorded():
            models.setdefault(record["model"], []).append(run)
        problems, checked = [], 0
        for name in [model] if model else sorted(models):
            registry = runs.registry(name)
            aliases = registry.aliases()
            runs.require_known(registry, aliases[LIVE], models.get(name, []))
            for alias in (LIVE, PREVIOUS):
                if (version := aliases[alias]) is None:
                    continue
                checked += 1
                try:
                    registry.verify(version)
                    console.print(f"{shown(name)}: {alias} version {version} is as published.")
                except ModelError as error:
                    problems.append(f"{name}, {alias}: {error.problem}")
        if problems:
            raise ModelError(
                " ".join(problems),
                fix="roll back to another version with refit rollback --to, or restore the files from a backup",
            )
        print(json.dumps({"verified": checked}))
