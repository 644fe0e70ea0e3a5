"""A DAG run watched from a terminal: a live table, or one line per change where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from embedded.client import FINISHED_RUN, Client, Faltered, TaskInstance

POLL_SECONDS = 0.7
GIVE_UP_AFTER = 10  # failed polls in a row
COLOURS = {
    "success": "green",
    "running": "cyan",
    "failed": "bold red",
    "upstream_failed": "red",
    "up_for_retry": "yellow",
    "skipped": "magenta",
}


def watch(
    client: Client, dag_id: str, run_id: str, order: Sequence[str], console: Console
) -> tuple[str, list[TaskInstance]]:
    """Show the run until it has finished; gives its state and its task instances. `order` is that of the rows."""
    begun = time.monotonic()
    shown: dict[tuple[str, int], str] = {}
    misses = 0
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            try:
                state = client.run_state(dag_id, run_id)
                tasks = _sorted(client.task_instances(dag_id, run_id), order)
                misses = 0
            except (httpx.TransportError, Faltered):
                misses += 1
                if misses == GIVE_UP_AFTER:
                    raise
                time.sleep(POLL_SECONDS)
                continue
            if console.is_terminal:
                live.update(_table(tasks, time.monotonic() - begun), refresh=True)
            else:
                _print_changes(tasks, shown, console, time.monotonic() - begun)
            if state in FINISHED_RUN:
                return state, tasks
            time.sleep(POLL_SECONDS)


def _sorted(tasks: list[TaskInstance], order: Sequence[str]) -> list[TaskInstance]:
    rank = {name: number for number, name in enumerate(order)}
    return sorted(tasks, key=lambda task: (rank.get(task.task_id, len(rank)), task.map_index))


def _table(tasks: list[TaskInstance], elapsed: float) -> Table:
    table = Table(box=None, header_style="bold", caption=f"{elapsed:.0f} s", caption_justify="left", pad_edge=False)
    table.add_column("task", min_width=18)
    table.add_column("state", min_width=12)
    table.add_column("time", justify="right")
    for task in tasks:
        colour = COLOURS.get(task.state, "dim")
        table.add_row(_name(task), f"[{colour}]{_state(task)}[/]", _duration(task))
    return table


def _print_changes(
    tasks: list[TaskInstance], shown: dict[tuple[str, int], str], console: Console, elapsed: float
) -> None:
    for task in tasks:
        key = (task.task_id, task.map_index)
        if task.state in COLOURS and shown.get(key) != task.state:
            took = "" if task.state == "running" else _duration(task)
            console.print(f"{elapsed:5.0f} s  {_name(task):<18} {_state(task)} {took}".rstrip(), highlight=False)
            shown[key] = task.state


def _name(task: TaskInstance) -> str:
    return f"{task.task_id} {task.label}".rstrip()


def _state(task: TaskInstance) -> str:
    return task.state.replace("_", " ") or "waiting"


def _duration(task: TaskInstance) -> str:
    if task.start is None or task.state not in COLOURS:
        return ""
    end = task.end or datetime.now(UTC)
    return f"{max(0.0, (end - task.start).total_seconds()):.1f} s"
