"""Watches a directory from the triggerer and tells when new files have settled.

It remembers one digest of all files that it has announced (path, size and time of change of each), so it finds out
after a restart whether anything has happened meanwhile, also a change or a removal, which are news to the dataset.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

ANNOUNCED = "announced"  # key in the asset's state store
EXAMPLES = 5

Versions = Mapping[str, tuple[int, int]]  # path below the directory to size in bytes and time of change in ns


@dataclass
class Watch:
    """What is there and since when, and what was announced. Times are seconds of one clock that never goes back."""

    quiet_seconds: float
    at_most_seconds: float
    announced: Versions | None = None  # None: unknown, so everything is new
    present: Versions = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    changed: float | None = None  # last change of anything
    waiting: float | None = None  # since the first change that is not announced

    def look(self, found: Versions, now: float) -> Versions | None:
        """Take note of a listing; gives the files to announce, all that have settled, if now is the time."""
        if self.changed is None or found != self.present:
            self.since = {
                path: self.since.get(path, now) if self.present.get(path) == version else now
                for path, version in found.items()
            }
            self.present, self.changed = found, now
        if self.present == self.announced or not (self.present or self.announced):
            self.waiting = None
            return None
        self.waiting = now if self.waiting is None else self.waiting
        if now - self.changed >= self.quiet_seconds:
            return self.present
        if now - self.waiting < self.at_most_seconds:
            return None
        # Files that still grow are left for later: they keep the version that was announced, if any.
        known = self.announced or {}
        settled = {path: version for path, version in found.items() if now - self.since[path] >= self.quiet_seconds}
        growing = {path: known[path] for path in found.keys() - settled.keys() if path in known}
        ready = settled | growing
        return ready if ready != known else None

    def confirm(self, announced: Versions) -> None:
        self.announced = announced
        self.waiting = None


class InboxTrigger(BaseEventTrigger):
    """An event each time that the files in `directory` are others than were announced and have been quiet for a while.

    Args:
        quiet_seconds: without any change, before an event.
        at_most_seconds: after the first change an event comes anyway, if any file has been quiet for that long.
    """

    def __init__(self, *, directory: str, poll_seconds: float, quiet_seconds: float, at_most_seconds: float) -> None:
        super().__init__()
        self.directory = directory
        self.poll_seconds = poll_seconds
        self.quiet_seconds = quiet_seconds
        self.at_most_seconds = at_most_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("directory", "poll_seconds", "quiet_seconds", "at_most_seconds")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        watch = Watch(self.quiet_seconds, self.at_most_seconds)
        problem = ""
        remembered = await self._remembered()
        while True:
            try:
                found = await asyncio.to_thread(listing, self.directory)
            except OSError as error:  # a mount that is away for a while; what was there is not gone
                if str(error) != problem:
                    self.log.warning("Cannot look into %s: %s. Trying again.", self.directory, error)
                problem = str(error)
                await asyncio.sleep(self.poll_seconds)
                continue
            problem = ""
            if remembered is not None:
                if digest(found) == remembered:
                    watch.confirm(found)
                remembered = None
            ready = watch.look(found, time.monotonic())
            if ready is None:
                await asyncio.sleep(self.poll_seconds)
                continue
            known = watch.announced or {}
            news = sorted(path for path, version in ready.items() if known.get(path) != version)
            yield TriggerEvent(
                {
                    "directory": self.directory,
                    "files": len(ready),
                    "new": len(news),
                    "gone": len(known.keys() - ready.keys()),
                    "examples": news[:EXAMPLES],
                }
            )
            # The event reaches the database about a second after the yield. What is remembered before that and lost
            # with this process would never be announced; what is announced twice costs a run that ends at once.
            await asyncio.sleep(self.poll_seconds)
            watch.confirm(ready)
            await self._remember(digest(ready))

    async def _remembered(self) -> str | None:
        if self.asset_state_store is None:
            return None
        value = await self.asset_state_store.aget(ANNOUNCED)
        return value if isinstance(value, str) else None

    async def _remember(self, value: str) -> None:
        if self.asset_state_store is not None:
            await self.asset_state_store.aset(ANNOUNCED, value)


def listing(directory: str) -> dict[str, tuple[int, int]]:
    """All files below, but for hidden ones, as `refit` lists them. Raises `OSError` if a folder cannot be read.

    100 000 files take half a second, so call it in a thread.
    """
    found = {}
    above: dict[str, frozenset[tuple[int, int]]] = {}
    for folder, subfolders, names in os.walk(directory, onerror=_raise, followlinks=True):
        status = os.stat(folder)
        here, parents = (status.st_dev, status.st_ino), above.get(os.path.split(folder)[0], frozenset())
        if here in parents:  # a link in a circle
            subfolders.clear()
            continue
        above[folder] = parents | {here}
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except OSError:  # gone meanwhile, or a link to nowhere
                continue
            if not name.startswith("."):
                found[os.path.relpath(path, directory)] = (status.st_size, status.st_mtime_ns)
    return found


def digest(versions: Versions) -> str:
    """Of a listing, whatever its order."""
    total = hashlib.sha256()
    for path in sorted(versions):
        total.update(f"{path}\0{versions[path][0]}\0{versions[path][1]}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def _raise(error: OSError) -> None:
    raise error
