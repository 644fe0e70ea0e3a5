"""Progress of long work: a bar on a terminal, a log line every few seconds elsewhere (Airflow's task log)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
LINE_EVERY_SECONDS = 10.0


def track(items: Iterable[Item], *, total: int, what: str) -> Iterator[Item]:
    """Yield `items`, showing how many of `total` are done and how long the rest will take."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            yield from bar.track(items, total=total, description=what)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_EVERY_SECONDS:
            last = now
            logger.info("%s: %d of %d, %.0f s left", what, done, total, (now - start) / done * (total - done))
