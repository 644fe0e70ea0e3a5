"""Progress of long work: a bar on a terminal, a log line every few seconds elsewhere (Airflow's task log)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


class Meter:
    """How far work of `total` units is that began at `done`, and how fast it goes."""

    def __init__(self, total: int, *, done: int, what: str, unit: str, bar: Progress | None) -> None:
        self.total, self.done, self.what, self.unit = total, done, what, unit
        self._bar, self._first = bar, done
        self._start = self._said = time.monotonic()
        self._task = None if bar is None else bar.add_task(what, total=total, completed=done, rate="")

    def advance(self, units: int, what: str) -> None:
        """`units` more are done; `what` is being done now."""
        self.done += units
        if self._bar is not None and self._task is not None:
            rate = f"{self.rate:.0f} {self.unit}/s"
            self._bar.update(self._task, completed=self.done, description=what, rate=rate)

    @property
    def rate(self) -> float:
        """Units per second since the work began here."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    @property
    def left(self) -> float:
        """Seconds that the rest will take; infinite before the first unit."""
        return (self.total - self.done) / self.rate if self.rate else float("inf")

    @property
    def due(self) -> bool:
        """Whether there is no bar, and no line was said for a while."""
        return self._bar is None and time.monotonic() - self._said >= LINE_EVERY_SECONDS

    def say(self, line: str) -> None:
        """Show a line that stays: above the bar, or in the log."""
        self._said = time.monotonic()
        if self._bar is None:
            logger.info("%s", line)
        else:
            self._bar.console.print(line, markup=False, highlight=False)


@contextmanager
def meter(total: int, *, what: str, unit: str, done: int = 0) -> Iterator[Meter]:
    """Yield a meter of work that the caller advances, with a bar on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Meter(total, done=done, what=what, unit=unit, bar=None)
        return
    columns = (
        *(TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("{task.fields[rate]}"), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Meter(total, done=done, what=what, unit=unit, bar=bar)
