"""`make demo`: two retrainings of a classifier of handwritten digits in Airflow, the second on newly arrived images.

Everything lies in `.demo`: `inbox` with the images, `home` with the runs, the registry and Airflow's own files.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import httpx
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from embedded import digits, server
from embedded.client import ApiError, Client, TaskInstance
from embedded.config import USER
from embedded.progress import watch

DAG_ID = "retrain"
MODEL = "digits"
# A quick recipe: scans of 8×8 pixels need no large input. And a mirrored digit is no digit.
SETTINGS = [
    f"promote.model={MODEL}",
    "train.parts=[fold-0, fold-1, final]",
    "train.input_size=64",
    "train.phases.finetune.epochs=6",
    "augment.horizontal_flip=false",
]
LOG_LINES = 20


class DemoFailed(Exception):
    """The text says what went wrong and where to look."""


def main() -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    folder = Path(".demo").absolute()
    home = folder / "home"
    server.stop(home)
    try:
        _demo(console, folder, home)
    except (DemoFailed, server.ServerError, ApiError, httpx.HTTPError) as error:
        console.print("[bold red]error:[/]", Text(str(error)))
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped. `make demo` starts over.")
        return 130
    finally:
        with console.status("Stopping Airflow"):
            server.stop(home)
    return 0


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _demo(console: Console, folder: Path, home: Path) -> None:
    begun = time.monotonic()
    if folder.exists():
        console.print(f"Starting over: {folder} of an earlier demo is removed.")
        shutil.rmtree(folder)
    inbox = folder / "inbox"
    first = digits.deliver(inbox, late=False)
    console.print(f"[bold]{first} scanned digits[/] (8×8 pixels, 10 classes) were delivered to {inbox}", soft_wrap=True)
    with console.status("Starting Airflow (SQLite, 127.0.0.1 only)"):
        airflow = server.start(home)
    console.print(f"Airflow runs at {airflow.url}   user {USER}, password {airflow.password}\n")

    with airflow.client() as client:
        client.unpause(DAG_ID)
        console.rule("First run: train a model and hold it against the absolute floors", align="left")
        run = _retrain(console, client, airflow, home, inbox)
        _explain(console, run)

        late = digits.deliver(inbox, late=True)
        console.rule(f"Second run: {late} more images have arrived", align="left")
        run = _retrain(console, client, airflow, home, inbox)
        _explain(console, run)

    console.rule("Where to look", align="left")
    console.print(f"Reports:  {home / 'runs'}/*/report.html")
    console.print(f"Models:   {home / 'registry' / MODEL}")
    console.print(f"Airflow:  `make ui` brings it back ({airflow.url} if that port is free), `make down` ends it.")
    console.print(f"Took {_minutes(time.monotonic() - begun)}.")


def _retrain(console: Console, client: Client, airflow: server.Server, home: Path, inbox: Path) -> Path:
    """Trigger the DAG and show it to its end; gives the run's directory. Raises `DemoFailed` if a task failed."""
    run_id = client.trigger(DAG_ID, {"source": str(inbox), "set": SETTINGS})
    graph = yaml.safe_load((server.ROOT / "dvc.yaml").read_text())["stages"]
    state, tasks = watch(client, DAG_ID, run_id, ["start", *graph, "promote"], console)
    if state != "success":
        raise DemoFailed(_failure(client, airflow, run_id, tasks))
    return home / "runs" / re.sub(r"[^A-Za-z0-9._-]", "_", run_id)  # as `refit` names it


def _failure(client: Client, airflow: server.Server, run_id: str, tasks: list[TaskInstance]) -> str:
    """The end of the first failed task's log, and where the rest is."""
    failed = [task for task in tasks if task.state == "failed"]
    if not failed:
        return f"The run {run_id} failed before any task did; see {airflow.home / 'scheduler.log'}."
    names = ", ".join(f"{task.task_id} {task.label}".rstrip() for task in failed)
    task = failed[0]
    lines = [line for line in client.log(DAG_ID, run_id, task) if not line.startswith("::")]
    mapped = f"/mapped/{task.map_index}" if task.label else ""
    return "\n".join(
        [
            f"{names} failed. The end of its log:"
            if len(failed) == 1
            else f"{names} failed. The end of the first log:",
            *(f"  {line}" for line in lines[-LOG_LINES:]),
            "All of it, after `make ui`:",
            f"  {airflow.url}/dags/{DAG_ID}/runs/{run_id}/tasks/{task.task_id}{mapped}",
        ]
    )


def _explain(console: Console, run: Path) -> None:
    """What the run read, measured and decided, from its files."""
    ingest, evaluation = _read(run / "metrics/ingest.json"), _read(run / "metrics/evaluate.json")
    decision, promotion = _read(run / "decision.json"), _read(run / "promotion.json")
    batch = ingest["batches"][-1]
    quarantined = sum(batch["quarantined"].values())
    console.print()
    if batch["known"]:
        console.print(
            f"Only the [bold]{batch['accepted']} new images[/] were read, measured and written to shards; "
            f"{batch['known']} were known and left alone ({quarantined} quarantined)."
        )
    else:
        console.print(f"[bold]{batch['accepted']} images[/] were ingested ({quarantined} quarantined).")

    test, folds, live = evaluation["test"], evaluation["cross_validation"], evaluation["live"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("measured on", min_width=34)
    table.add_column("accuracy")
    table.add_column("balanced accuracy")
    table.add_row(
        f"{test['images']} held-out test images", _interval(test, "accuracy"), _interval(test, "balanced_accuracy")
    )
    table.add_row(
        f"{len(folds['folds'])} folds of cross-validation",
        "",
        f"{folds['balanced_accuracy_mean']:.3f} ± {folds['balanced_accuracy_std']:.3f}",
    )
    if live:
        table.add_row(
            f"live version {live['version']}, {live['images']} images new to both",
            f"{live['accuracy']:.3f}, candidate {live['candidate_accuracy']:.3f}",
            f"{live['balanced_accuracy']:.3f}, candidate {live['candidate_balanced_accuracy']:.3f}",
        )
        table.add_row(
            "candidate minus live",
            "",
            f"{live['difference']:+.3f} ({live['difference_low']:+.3f} to {live['difference_high']:+.3f})",
        )
    console.print(table)
    console.print()

    rules = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "rule", "why"):
        rules.add_column(heading)
    for rule in decision["rules"]:
        rules.add_row("[green]pass[/]" if rule["passed"] else "[red]fail[/]", rule["rule"], escape(rule["explanation"]))
    console.print(rules)
    colour = "green" if promotion["promoted"] else "yellow"
    console.print(f"[bold {colour}]{decision['summary']}[/]")
    if promotion["promoted"]:
        console.print(f"Version {promotion['version']} of the model {MODEL} is live.")
    console.print(f"Report: {run / 'report.html'}\n", soft_wrap=True)


def _interval(measured: dict[str, Any], name: str) -> str:
    return f"{measured[name]:.3f} ({measured[f'{name}_low']:.3f} to {measured[f'{name}_high']:.3f})"


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s"


if __name__ == "__main__":
    raise SystemExit(main())
