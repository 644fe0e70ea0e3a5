"""What has been read from a source and is in no batch yet: one JSON line for each version of a file.

It lies outside of the runs, so what a killed ingest has read, the next one need not, whatever run it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.ingestion.answers import Checked, Limits, recalled
from pipeline.settings import refit_home
from pipeline.sources.source import Item


def path(place: str) -> Path:
    """The journal of the source `place`."""
    return refit_home() / "ingest" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.jsonl"


@contextmanager
def appending(journal: Path, limits: Limits) -> Iterator[Callable[[Item, Checked], None]]:
    """A function that adds an answer. Each is one unbuffered write in append mode: it outlives a kill of this process,
    and threads and processes that write at once do not mix their lines."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("ab", buffering=0) as stream:
        yield lambda item, found: _write(stream.write, item, found, limits)


def read(journal: Path, limits: Limits) -> dict[tuple[str, str], Checked]:
    """(uri, version) to the answer, of those that still hold under `limits`."""
    found = {}
    for entry in _entries(journal):
        answer = recalled(entry, entry["limits"], limits)
        if answer is not None:
            found[entry["uri"], entry["version"]] = answer
    return found


def replace(journal: Path, answers: Mapping[Item, Checked], limits: Limits) -> None:
    """Keep only `answers`, once everything else is in a batch."""
    if not answers:
        journal.unlink(missing_ok=True)
        return
    with files.replacing(journal) as temporary, temporary.open("wb", buffering=0) as stream:
        for item, found in answers.items():
            _write(stream.write, item, found, limits)


def _write(write: Callable[[bytes], Any], item: Item, found: Checked, limits: Limits) -> None:
    entry = {
        "uri": item.uri,
        "version": item.version,
        "image_id": found.image_id,
        "notes": found.notes,
        "reason": found.reason,
        "detail": found.detail,
        "limits": limits.of_size,
    }
    write(f"\n{json.dumps(entry)}\n".encode())  # the line break in front ends a line that a crash has torn


def _entries(journal: Path) -> Iterator[dict[str, Any]]:
    if not journal.exists():
        return
    with journal.open("rb") as stream:
        for line in stream:
            try:
                yield json.loads(line)
            except ValueError:  # blank or torn
                continue
