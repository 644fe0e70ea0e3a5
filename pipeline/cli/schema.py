"""`refit schema`: what the images of a model should be."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline import files
from pipeline.cli.chosen import newest
from pipeline.cli.errors import clear_errors
from pipeline.errors import SettingsError
from pipeline.settings import code_root

app = typer.Typer(no_args_is_help=True, help="The schema that images are held against.")
console = Console()


@app.callback()
def schema() -> None:
    """The schema that images are held against."""


@app.command()
def propose(
    model: Annotated[str | None, typer.Option(help="Take the newest run of this classifier.")] = None,
    run: Annotated[str | None, typer.Option(help="Take this run; default: the newest.")] = None,
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("schema.pbtxt"),
    force: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
) -> None:
    """Draft a schema from the images of a run, for people to review and commit.

    Nothing uses it before validate.schema names it.
    """
    with clear_errors():
        chosen = newest(model, run, stage="profile", wanted="profiled images to draft a schema from")
        if output.exists() and not force:
            raise SettingsError(
                f"--output: expected a new file, {output} exists.", fix="name another file, or replace it with --force"
            )
        # Imported late: the environment of a scheduler has no TensorFlow metadata, and other commands need none.
        from pipeline.dataset import manifest
        from pipeline.profiling import batches
        from pipeline.profiling import schema as schemas

        table = batches.current(
            manifest.read_batches(chosen.path / "data/manifest"), manifest.read_batches(chosen.path / "data/features")
        )
        base = schemas.read(code_root() / "pipeline/validation/schema.pbtxt")
        proposal, narrowed = schemas.propose(table, base)
        origin = (
            f"run {chosen.run_id} of model {chosen.record['model']}, {table.num_rows} images, "
            f"on {datetime.now(UTC).date()}"
        )
        files.write_text(output, schemas.to_text(proposal, narrowed, origin))

        shown = Table("feature", "was", "becomes", "look at", box=None, header_style="bold")
        for item in narrowed:
            shown.add_row(item.feature, *(escape(text or "") for text in (item.before, item.after, item.remark)))
        console.print(shown)
        console.print(f"Proposed from {origin}: [bold]{escape(str(output))}[/]", soft_wrap=True)
        console.print("Review it, commit it, and set validate.schema to its path.")
