"""`refit split`: which images train, which select, which are held out, and why it is not as wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from pipeline import files, wording
from pipeline.cli.chosen import newest
from pipeline.cli.errors import clear_errors
from pipeline.cli.text import plain, shown
from pipeline.dataset import manifest
from pipeline.errors import DataError
from pipeline.runs import Run

SPLITS = ("train", "val", "test")
QUARANTINE = "quarantine"
HELD_OUT_FIRST = (*SPLITS[::-1], QUARANTINE)
FEW = 5  # images that are listed before the rest is counted
PREFIX = 8  # digits of an image id that are enough to name it

app = typer.Typer(no_args_is_help=True, help="Which images train, which select, which are held out.")
console = Console(highlight=False)


@app.callback()
def split() -> None:
    """Which images train, which select, which are held out."""


@app.command()
def show(
    image: Annotated[
        str | None, typer.Argument(metavar="[URI_OR_IMAGE_ID]", help="Tell where this one image is, and why.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Take the newest run of this classifier that has split.")] = None,
    run: Annotated[str | None, typer.Option(help="Take this run; default: the newest that has split.")] = None,
    quarantined: Annotated[bool, typer.Option("--quarantined", help="List all images in quarantine.")] = False,
) -> None:
    """Show the splits of a run: shares, classes, folds, shortfalls and what is kept out; or where one image is."""
    with clear_errors():
        chosen = newest(model, run, stage="shard", wanted="images that have been split")
        rows = _rows(chosen)
        console.print(f"Run [bold]{chosen.run_id}[/] of model [bold]{shown(chosen.record['model'])}[/]", soft_wrap=True)
        if image is not None:
            _one(chosen, rows, image)
            return
        metrics = files.read_json(chosen.path / "metrics/shard.json")
        if "shares" not in metrics:
            raise DataError(
                f"Expected shares in metrics/shard.json of run {chosen.run_id}, found none: an earlier Refit split it.",
                fix="refit run --force splits anew; no image changes sides",
            )
        _overview(metrics)
        _list_quarantined([row for row in rows.values() if row["split"] == QUARANTINE], everything=quarantined)


def _rows(run: Run) -> dict[str, dict[str, Any]]:
    """Image id to its row of the assignment, with its uri and user group."""
    table = pq.read_table(run.path / "data/assignment.parquet").to_pylist()
    current = manifest.current(manifest.read_batches(run.path / "data/manifest")).to_pylist()
    files_of = {row["image_id"]: {"uri": row["uri"], "user_group": row["group"]} for row in current}
    return {row["image_id"]: {"reason": None, **row, **files_of[row["image_id"]]} for row in table}


def _overview(metrics: Mapping[str, Any]) -> None:
    count, classes = wording.count, metrics["classes"]
    table = _table("split", ("images", "share", "wanted", "groups"))
    for name in SPLITS:
        share = metrics["shares"][name]
        got = "–" if share["got"] is None else f"{share['got']:.1%}"
        table.add_row(
            name, str(metrics["images"][name]), got, f"{share['wanted']:.1%}", str(metrics["groups_in"][name])
        )
    table.add_row(QUARANTINE, str(metrics["images"][QUARANTINE]), "", "", "")
    console.print(table)
    if metrics["groups"]:
        console.print(
            f"{count(metrics['groups'], 'group')}, the largest of {count(metrics['largest_group'], 'image')}\n",
            soft_wrap=True,
        )

    labels = sorted({label for by_label in classes.values() for label in by_label})
    table = _table("class", (*SPLITS, QUARANTINE))
    for label in labels:
        table.add_row(shown(label), *(str(classes[name].get(label, 0)) for name in (*SPLITS, QUARANTINE)))
    console.print(table)

    console.print()
    table = _table("fold", ("train", "val", "least of a class", "most of a class"))
    for fold in metrics["folds"]:
        # Classes differ in size, so each is held against its own mean over the folds.
        relative = [_relative(metrics["folds"], fold, label) for label in labels]
        spread = [value for value in relative if value is not None]
        ends = [f"{value:.0%}" for value in (min(spread), max(spread))] if spread else ["–", "–"]
        table.add_row(str(fold["fold"]), str(fold["images"]["train"]), str(fold["images"]["val"]), *ends)
    console.print(table)
    console.print("[dim]100% is the mean of the class over the folds[/]", soft_wrap=True)

    if metrics["shortfalls"]:
        console.print("\n[bold]Not as wanted[/]")
        for sentence in metrics["shortfalls"]:
            console.print(f"  {shown(sentence)}", soft_wrap=True)


def _table(first: str, columns: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _relative(folds: Sequence[Mapping[str, Any]], fold: Mapping[str, Any], label: str) -> float | None:
    total = sum(other["classes"].get(label, 0) for other in folds)
    return len(folds) * fold["classes"].get(label, 0) / total if total else None


def _list_quarantined(rows: Sequence[Mapping[str, Any]], *, everything: bool) -> None:
    if not rows:
        return
    console.print(f"\n[bold]{wording.count(len(rows), 'image')} in quarantine[/], as long as the cause lasts")
    ordered = sorted(rows, key=lambda row: (row["reason"] or "", row["uri"]))
    for row in ordered if everything else ordered[:FEW]:
        console.print(f"  {shown(row['uri'])}  [dim]{shown(row['reason'] or 'unknown')}[/]", soft_wrap=True)
    if len(rows) > FEW and not everything:
        console.print(f"  and {len(rows) - FEW} more: refit split show --quarantined", soft_wrap=True)


def _one(run: Run, rows: Mapping[str, Mapping[str, Any]], name: str) -> None:
    row = _find(rows, name)
    same = [other for other in rows.values() if other["group"] == row["group"] and other is not row]
    recorded = _recorded(run.path / "data/splits", row["image_id"], run.params["shard"]["salt"])
    known = {"file": row["uri"], "image": row["image_id"], "class": row["label"], "split": row["split"]}
    if row["split"] == QUARANTINE:
        known["reason"] = row["reason"] or "unknown"
    if row["fold"] >= 0:
        known["fold"] = str(row["fold"])
    if recorded:
        known["placed"] = f"{recorded[1]}, by the run that brought batch {recorded[0]}; this never changes"
    known["batch"] = row["batch"]
    if row["user_group"] is not None:
        known["your group"] = row["user_group"]
    if row["split"] == QUARANTINE:
        contacts = _contacts(run.path, rows, row["image_id"])
        ordered = sorted(contacts, key=lambda other: (HELD_OUT_FIRST.index(rows[other]["split"]), rows[other]["uri"]))
        listed = [f"{rows[other]['uri']} ({rows[other]['split']}, {contacts[other]})" for other in ordered]
        title = "linked to"
        if not listed:
            known[title] = "a test image that has left the source"
    else:
        known["group"] = row["group"]
        listed, title = sorted(f"{other['uri']} ({other['label']})" for other in same), "with it"
        if not same:
            known["with it"] = "no other image"
    width = max(len(title), *map(len, known))
    for label, text in known.items():
        console.print(f"[bold]{label:{width}}[/]  {shown(text)}", soft_wrap=True)
    more = [f"and {len(listed) - 4 * FEW} more"] if len(listed) > 4 * FEW else []
    for number, text in enumerate(listed[: 4 * FEW] + more):
        console.print(f"[bold]{title if number == 0 else '':{width}}[/]  {shown(text)}", soft_wrap=True)


def _find(rows: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """By uri or image id; so many first digits of an id are enough as only one image has. Raises `DataError`."""
    found = [row for row in rows.values() if name in (row["image_id"], row["uri"], plain(row["uri"]))]
    if not found and len(name) >= PREFIX:
        found = [row for image_id, row in rows.items() if image_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{plain(name)} is the beginning of {len(found)} image ids.", fix="give more digits")
    raise DataError(
        f"Expected the uri or the id of an image that this run has split, got {plain(name)}.",
        fix="copy it from the source's listing; `refit quarantine list` names files that ingest has not accepted",
    )


def _recorded(folder: Path, image_id: str, salt: str) -> tuple[str, str] | None:
    """(batch, split) of its first record, None if it has none."""
    from pipeline.dataset import assignment  # imported late, see below

    for path in manifest.batch_files(folder):
        if (place := assignment.read_file(path, salt).get(image_id)) is not None:
            return path.stem, place.split
    return None


def _contacts(run: Path, rows: Mapping[str, Mapping[str, Any]], image_id: str) -> dict[str, str]:
    """Ids of the images in a split that it must not be parted from, to how they hang together."""
    # Imported late: it takes SciPy, which the environment of a scheduler lacks and other commands do not need.
    from pipeline.dataset import duplicate_links
    from pipeline.dataset.contacts import Contacts

    links = duplicate_links.read(run / "data/duplicates")
    groups = {key: row["user_group"] for key, row in rows.items() if row["user_group"] is not None}
    return Contacts(links.pairs, links.cluster, groups).of(image_id, rows.keys())
