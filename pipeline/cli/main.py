"""The `refit` command."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline import files, runs
from pipeline.backbones import registry as catalogue
from pipeline.cli import export, kfp, models, predict, quarantine, recipes, reference, schema, split
from pipeline.cli.approve import approve
from pipeline.cli.errors import EXIT_NOTHING_NEW, clear_errors
from pipeline.cli.gc import gc
from pipeline.cli.pending import pending
from pipeline.cli.promote import decision_of, promote, promoted, say_outcome, say_waiting
from pipeline.cli.rollback import rollback
from pipeline.cli.show import show
from pipeline.cli.text import plain
from pipeline.cli.verify import verify
from pipeline.errors import RefitError, TransientError
from pipeline.promotion import approval, approval_text
from pipeline.promotion.opening import located
from pipeline.report.build import build as build_report
from pipeline.runs import Run
from pipeline.settings import params_file, parse, read_params, with_overrides
from pipeline.stage import record_failure

GATE = "gate"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Retrain an image classifier: ingest, profile, validate, split, fine-tune, evaluate, gate, promote.",
    epilog="Everything lives in $REFIT_HOME (default: .refit here). Start with: refit run --source DIR",
)
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(split.app, name="split")
app.add_typer(schema.app, name="schema")
app.add_typer(reference.app, name="reference")
app.add_typer(models.app, name="models")
models.app.command()(verify)
app.add_typer(kfp.app, name="kfp")
app.command()(promote)
app.command()(approve)
app.command()(rollback)
app.command()(show)
app.command()(recipes.recipes)
app.command()(predict.predict)
app.command()(export.export)
app.command()(pending)
app.command()(gc)
console = Console()

Source = Annotated[str | None, typer.Option(help="Directory or s3://bucket/prefix with one folder per class.")]
Model = Annotated[str | None, typer.Option(help="Name of the classifier in the registry.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a value of params.yaml for this run."),
]
RunId = Annotated[str, typer.Option(help="Name of the run's directory in $REFIT_HOME/runs.")]


@app.command()
def run(
    source: Source = None,
    model: Model = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option(help="Train even if nothing is new since the last run.")] = False,
) -> None:
    """Retrain on a source, from ingest to promotion.

    Only what is new at the source is processed. A run that was cut off is continued.
    """
    with clear_errors():
        params = _params(source, model, overrides)
        current = None if force else runs.interrupted(params)
        if current is not None:
            console.print(f"Continuing run [bold]{current.run_id}[/], which was cut off.")
        else:
            current = runs.create(runs.new_id(), params)
            console.print(f"Run [bold]{current.run_id}[/] of model [bold]{params['promote']['model']}[/]")
        _run(current, force)


def _run(current: Run, force: bool) -> None:
    begun = time.monotonic()
    targets = runs.stage_names(current)
    with _reporting(current), runs.driving(current):
        for number, target in enumerate(targets, start=1):
            console.rule(f"{target}  [dim]{number} of {len(targets)}[/]", align="left", style="dim")
            if not runs.reproduce(current, target, force=force):
                console.print("  [dim]up to date[/]")
            if target == "ingest" and runs.nothing_new(current) and not force:
                _say_nothing_new(current)
                return
        decided = decision_of(current)
        waits = decided is not None and approval.required(decided)
        promotion = None if waits else promoted(current)
        if waits:
            current.update(status=runs.WAITING)
    if promotion is not None:
        say_outcome(current, promotion)
    elif decided is not None:
        say_waiting(current, decided)
    console.print(f"Took {time.monotonic() - begun:.0f} s.")


@app.command()
def start(run_id: RunId, source: Source = None, model: Model = None, overrides: Overrides = None) -> None:
    """Create a run without running it; for schedulers, which then call `refit stage`.

    The last line printed is JSON with the run's id and its training parts.
    """
    with clear_errors():
        current = runs.create(run_id, _params(source, model, overrides), scheduled=True)
        build_report(current.path)
        runs.publish(current)
        print(json.dumps({"run_id": current.run_id, "parts": current.params["train"]["parts"]}))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="A stage of dvc.yaml, or promote.")],
    run_id: RunId,
    part: Annotated[str | None, typer.Option(help="Which training: fold-0, …, final. Only for train.")] = None,
    skip_if_nothing_new: Annotated[
        bool, typer.Option(help=f"With ingest: exit with status {EXIT_NOTHING_NEW} if nothing is new.")
    ] = False,
    answer: Annotated[
        str | None, typer.Option("--approval", metavar="JSON", help="With promote: what a person has answered.")
    ] = None,
) -> None:
    """Run one stage of a run that exists; for schedulers.

    The last line that gate prints is JSON: whether it promotes, and whether and what a person is to be asked.

    Exit status: 0 done, 75 try again later, 65 and 78 wrong input or settings (a retry is useless).
    """
    with clear_errors():
        current = runs.find(run_id)
        target = f"{name}@{part}" if part else name
        known = [*runs.stage_names(current), runs.PROMOTE]
        if target not in known:
            raise typer.BadParameter(f"{target!r} is no stage of this run; there are: {', '.join(known)}")
        with _reporting(current):
            with _failure_recorded(current):
                if name == runs.PROMOTE:
                    said = approval.parse(answer) if answer is not None else None
                    say_outcome(current, promoted(current, answer=said))
                    return
                runs.reproduce(current, target)
            if name == "ingest" and runs.nothing_new(current) and skip_if_nothing_new:
                _say_nothing_new(current)
                raise typer.Exit(EXIT_NOTHING_NEW)
            if name == GATE:
                question = approval_text.question(current.path)
                if question["approval"]["required"]:
                    current.update(status=runs.WAITING)
        if name == GATE:
            print(json.dumps(question))


@app.command("runs")
def list_runs(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """List the runs, newest last."""
    if as_json:
        keys = ("run_id", "model", "status", "created_at", "scheduled", "parent")
        print(json.dumps([{key: record.get(key) for key in keys} for _, record in runs.recorded()], indent=2))
        return
    table = Table("run", "model", "status", "from", box=None, header_style="bold")
    for found, record in runs.recorded():
        table.add_row(found.run_id, record["model"], _coloured(record["status"]), record["parent"] or "")
    console.print(table)


@app.command()
def backbones() -> None:
    """List the pretrained networks that train.backbone accepts, and where their weights come from."""
    from pipeline.backbones import weights

    columns = ("name", "native size", "smallest size", "scaling", "blocks", "weights at hand")
    table = Table(*columns, box=None, header_style="bold")
    for entry in catalogue.entries():
        sizes = (str(entry.native_size), str(entry.minimum_size))
        table.add_row(entry.name, *sizes, entry.scaling, str(entry.blocks), weights.at_hand(entry))
    console.print(table)


def _params(source: str | None, model: str | None, overrides: list[str] | None) -> dict[str, Any]:
    stated = read_params(params_file())
    params = with_overrides(stated, overrides or [])
    parse(params)
    if source is not None:
        params["ingest"]["source"] = source
    if model is not None:
        params["promote"]["model"] = model
    # As commands without --set find it; what was given with --set lies in the shell's directory.
    location = params["registry"]["location"]
    if location is not None and location == stated["registry"]["location"]:
        params["registry"]["location"] = located(location)
    # A run's stages work in another directory than this one.
    for section, key, words in (
        ("ingest", "source", ()),
        ("ingest", "labels", ()),
        ("validate", "schema", ()),
        ("registry", "location", ()),
        ("train", "weights", (catalogue.IMAGENET, catalogue.NONE, catalogue.LIVE)),
    ):
        place = params[section][key]
        if place is not None and place not in words and "://" not in place:
            params[section][key] = str(Path(place).expanduser().absolute())
    return params


@contextmanager
def _reporting(current: Run) -> Iterator[None]:
    """Whatever happens inside, the run's report shows it afterwards, on other machines too.

    What was cut off is not handed on: the run there stays as it was before.
    """
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # a full disk must not hide what happened before it
            build_report(current.path)
        if isinstance(error, RefitError | typer.Exit) and not isinstance(error, TransientError):
            _publish_failure(current)
        raise
    build_report(current.path)
    runs.publish(current)


def _publish_failure(current: Run) -> None:
    try:
        runs.publish(current)
    except RefitError as error:  # what happened before it is what counts
        print(f"warning: other machines are not told. {plain(str(error))}", file=sys.stderr)


@contextmanager
def _failure_recorded(current: Run) -> Iterator[None]:
    """The status of a run whose stages a scheduler starts one by one."""
    if current.record["status"] == runs.FAILED:  # and is now being repaired
        current.update(status=runs.RUNNING)
    try:
        yield
    except TransientError:
        raise
    except RefitError as error:
        record_failure(current.path, error)
        current.update(status=runs.FAILED)
        raise


def _say_nothing_new(current: Run) -> None:
    current.update(status=runs.NOTHING_NEW)
    before = runs.decided(current)
    last = files.read_json(current.path / "metrics/ingest.json")["batches"][-1]
    if last["batch"] not in _batches_of(before):
        console.print(f"{sum(last['quarantined'].values())} new files are quarantined; the report says why.")
    console.print(
        f"[bold]Nothing new[/] since run {before.run_id} ({before.record['status']}): same images, params and code. "
        "Nothing was trained. `refit run --force` trains anyway."
    )


def _batches_of(run: Run) -> set[str]:
    return {batch["batch"] for batch in files.read_json(run.path / "metrics/ingest.json")["batches"]}


def _coloured(status: str) -> str:
    decided = dict.fromkeys((runs.REFUSED, runs.REJECTED, runs.WAITING), "yellow")
    colours = {runs.PROMOTED: "green", **decided, runs.FAILED: "red", runs.INTERRUPTED: "red"}
    return f"[{colours.get(status, 'dim')}]{status}[/]"
