"""`refit quarantine`: what is kept out of the dataset, why, and what can be done about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import psutil
import pyarrow.compute as pc
import typer
from rich.console import Console
from rich.table import Table

from pipeline import runs
from pipeline.cli.errors import clear_errors
from pipeline.cli.text import plain, shown
from pipeline.dataset import store
from pipeline.errors import DataError, SettingsError
from pipeline.ingestion import history, reasons, releases
from pipeline.ingestion.history import History
from pipeline.ingestion.releases import Release
from pipeline.runs import Run
from pipeline.sources.item import tidy

app = typer.Typer(no_args_is_help=True, help="What is kept out of the dataset, why, and what can be done about it.")
console = Console(highlight=False, soft_wrap=True)

Model = Annotated[str | None, typer.Option(help="Name of the classifier; default: that of the newest run.")]
Uri = Annotated[str, typer.Argument(help="A file, as `refit quarantine list` shows it.")]


@app.command("list")
def list_quarantine(
    model: Model = None, reason: Annotated[str | None, typer.Option(help="Only files with this reason.")] = None
) -> None:
    """List what is in quarantine since the last ingest, by reason."""
    with clear_errors():
        if reason is not None and reason not in reasons.CURES:
            raise typer.BadParameter(f"{reason!r} is no reason; there are: {', '.join(sorted(reasons.CURES))}")
        run, past = _newest(model)
        rows = [row for row in past.waiting.to_pylist() if reason in (None, row["reason"])]
        by_reason = Counter(row["reason"] for row in rows).most_common()
        console.print(f"Run [bold]{run.run_id}[/] of model [bold]{run.record['model']}[/]: {len(rows)} in quarantine")
        counts = Table("files", "reason", "what brings them back", box=None, header_style="bold")
        for name, count in by_reason:
            counts.add_row(str(count), name, reasons.CURES.get(name, ""))
        console.print(counts, soft_wrap=False)
        for name, _ in by_reason:
            console.print(f"\n[bold]{name}[/]")
            for row in rows:
                if row["reason"] == name:
                    about = " · ".join([row["label"] or "no label", row["detail"], f"batch {row['batch']}"])
                    console.print(f"  {shown(row['uri'])}  [dim]{shown(about)}[/]")


@app.command()
def show(uri: Uri, model: Model = None) -> None:
    """Show all that is known of a file in quarantine, and what would bring it back."""
    with clear_errors():
        run, past = _newest(model)
        row = _find(past, uri)
        found = past.quarantined[row["batch"]].schema.metadata[b"at"].decode()
        known = {
            "file": row["uri"],
            "label": row["label"] or "none",
            "reason": f"{row['reason']}: {row['detail']}",
            "found": f"{datetime.fromisoformat(found):%Y-%m-%d %H:%M} UTC, in batch {row['batch']}",
            "version": f"{row['source_version']} ({row['bytes']} bytes)",
        }
        if row["image_id"] is not None:
            known |= {"image": row["image_id"], "kept at": str(store.path(row["image_id"]))}
        for number, copy in enumerate(_copies(past, row)):
            known["same bytes" if number == 0 else " " * number] = copy
        for release in releases.read(releases.path(run.record["model"])):
            if release.uri == row["uri"]:
                known[f"released {release.at}"] = f"as {release.label} by {release.by}: {release.reason}"
        known["cure"] = reasons.CURES.get(row["reason"], "when its cause is gone")
        width = max(map(len, known))
        for name, text in known.items():
            console.print(f"[bold]{name.strip():{width}}[/]  {shown(text)}")


@app.command()
def release(
    uri: Uri,
    label: Annotated[str, typer.Option(help="The class that the image belongs to.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept with the decision.")],
    model: Model = None,
) -> None:
    """Decide the label of a file whose label is contested or missing; the next run takes it in.

    The decision holds for this version of the file. Copies of it in other classes stay in quarantine.
    """
    with clear_errors():
        run, past = _newest(model)
        row = _find(past, uri)
        if row["reason"] not in reasons.RELEASABLE:
            raise DataError(
                f"Expected a file that lacks only a label, {plain(row['uri'])} is in quarantine as {row['reason']}: "
                f"{row['detail']}.",
                fix=reasons.CURES.get(row["reason"], "replace the file"),
            )
        label = tidy(label)
        if not label:
            raise SettingsError("--label: expected the name of a class, got nothing.", fix="name one")
        if label not in pc.unique(past.in_force["label"]).to_pylist():
            console.print(f"[yellow]{shown(label)} is a new class.[/]")
        decision = Release(
            row["uri"],
            row["source_version"],
            row["label"],
            label,
            by=psutil.Process().username(),
            at=datetime.now(UTC).isoformat(),
            reason=reason,
            image_id=row["image_id"],
        )
        releases.append(releases.path(run.record["model"]), decision)
        runs.share_releases(run.record["model"])
        console.print(f"The next `refit run` takes {shown(row['uri'])} in as [bold]{shown(label)}[/].")


def _newest(model: str | None) -> tuple[Run, History]:
    """The newest run that knows of a quarantine; a run that ended in ingest knows the one that it began with."""
    for run in runs.newest_first(model):
        folder = run.path / "data/quarantine"
        if (folder / history.CURRENT).exists():
            return run, history.read(run.path / "data/manifest", folder)
    raise DataError(
        f"Expected a run{f' of model {model!r}' if model else ''} that has ingested its source, found none.",
        fix="refit run --source DIR; `refit runs` lists what there is",
    )


def _find(past: History, uri: str) -> Mapping[str, Any]:
    """Raises `DataError` if the file is not in quarantine."""
    for row in past.waiting.to_pylist():
        if uri in (row["uri"], plain(row["uri"])):
            return row
    in_force = pc.any(pc.equal(past.in_force["uri"], uri)).as_py()
    raise DataError(
        f"{plain(uri)} is not in quarantine" + (", it is in the dataset." if in_force else "."),
        fix="`refit quarantine list` lists the files; copy the name from there",
    )


def _copies(past: History, row: Mapping[str, Any]) -> Iterable[str]:
    """The other files with the same bytes."""
    for table in (past.in_force, past.waiting):
        for other in table.filter(pc.equal(table["image_id"], row["image_id"])).to_pylist():
            if other["uri"] != row["uri"]:
                yield f"{other['uri']} ({other['label']}, {other.get('reason', 'in the dataset')})"
