"""What people have released from quarantine by naming the label: one JSON line for each decision."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.errors import DataError
from pipeline.ingestion import reasons
from pipeline.settings import refit_home
from pipeline.sources.source import Item


@dataclass(frozen=True)
class Release:
    """Holds for one content of a file, as long as its source does not give it yet another label."""

    uri: str
    source_version: str
    listed_label: str | None  # what the source said then
    label: str
    by: str
    at: str  # ISO 8601, UTC
    reason: str
    image_id: str | None = None  # of its content; None if that was not read for want of a label


def path(model: str) -> Path:
    return refit_home() / "ingest" / f"{model}.releases.jsonl"


def append(target: Path, release: Release) -> None:
    """In one write that is on the disk when this returns; releases made at once do not mix their lines."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("ab", buffering=0) as stream:
        stream.write(f"{json.dumps(asdict(release))}\n".encode())
        os.fsync(stream.fileno())


def read(target: Path) -> list[Release]:
    """Oldest first. Raises `DataError` for a line that is no release."""
    if not target.exists():
        return []
    found = []
    for number, line in enumerate(target.read_text().splitlines(), start=1):
        try:
            found.append(Release(**json.loads(line)))
        except (ValueError, TypeError):
            raise DataError(
                f"{target}, line {number}: expected a release, got {line[:80]!r}.",
                fix="remove the line and release the file again",
            ) from None
    return found


def apply(
    releases: Sequence[Release], items: Sequence[Item], image_ids: Mapping[str, str | None]
) -> tuple[list[Item], dict[str, Release]]:
    """The items with the labels that people gave them, and uri to the release that did; the last one counts.

    `image_ids`: of what has been read, by uri. A file that was only touched has another version and the same content.
    """
    by_version = {(each.uri, each.source_version): each for each in releases}
    by_content = {(each.uri, each.image_id): each for each in releases if each.image_id}
    result, released = [], {}
    for item in items:
        release = by_version.get((item.uri, item.version)) or by_content.get((item.uri, image_ids.get(item.uri) or ""))
        if release is None or not _holds(release, item):
            result.append(item)
            continue
        released[item.uri] = release
        result.append(replace(item, label=release.label, problem=None))
    return result, released


def _holds(release: Release, item: Item) -> bool:
    """An item of another source is on record with the label that it was given."""
    settled = item.problem is None or item.problem[0] in reasons.RELEASABLE
    return settled and item.label in {release.listed_label, release.label}
