"""What earlier ingests have found out, as their files tell it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset import manifest
from pipeline.ingestion.answers import Checked, Limits, recalled
from pipeline.ingestion.reasons import OF_LIMITS
from pipeline.sources.source import Item

CURRENT = "current.parquet"
BATCH = b"batch"  # in its metadata: the newest batch when it was written
RELEASED = "released"  # the note of an image whose label a person gave; of the label, not of the file


class Held(NamedTuple):
    """A row in force."""

    image_id: str
    version: str
    label: str
    group: str | None
    notes: tuple[str, ...]  # of the file


@dataclass(frozen=True)
class History:
    accepted: Mapping[str, pa.Table]  # batch to manifest.SCHEMA, of those batches that changed the dataset
    quarantined: Mapping[str, pa.Table]  # batch to manifest.QUARANTINE_SCHEMA, of every batch, oldest first
    waiting: pa.Table  # manifest.QUARANTINE_SCHEMA: everything that was in quarantine after the last ingest
    in_force: pa.Table  # manifest.SCHEMA

    def held(self) -> dict[str, Held]:
        """Uri to its row in force."""
        # Lists take most of the time, and few files have notes.
        unusual = self.in_force.filter(pc.greater(pc.list_value_length(self.in_force["notes"]), 0))
        notes = dict(zip(unusual["uri"].to_pylist(), map(_file_notes, unusual["notes"].to_pylist()), strict=True))
        names = ("uri", "image_id", "source_version", "label", "group")
        columns = (self.in_force[name].to_pylist() for name in names)
        return {
            uri: Held(image_id, version, label, group, notes.get(uri, ()))
            for uri, image_id, version, label, group in zip(*columns, strict=True)
        }

    def elsewhere(self, place: str) -> tuple[list[Item], dict[str, Checked]]:
        """What belongs to other sources than `place`, which cannot list it: the items, and what is known of each."""
        items, answers = [], {}
        for row in [*_outside(self.in_force, place).to_pylist(), *_outside(self.waiting, place).to_pylist()]:
            items.append(Item(row["uri"], "", row["source_version"], row["label"], row["bytes"], group=row["group"]))
            reason = {} if row["image_id"] else {"reason": row["reason"], "detail": row["detail"]}
            answers[row["uri"]] = Checked(row["image_id"], _file_notes(row["notes"]), **reason)
        return items, answers

    def recall(self, uris: Iterable[str], limits: Limits) -> dict[tuple[str, str], Checked]:
        """(uri, version) to what was found in the file, of those answers that still hold."""
        found = {}
        for row, judged_by in self._records(uris):
            answer = recalled(row | {"notes": _file_notes(row["notes"])}, judged_by, limits)
            if answer is not None:
                found[row["uri"], row["source_version"]] = answer
        return found

    def last_records(self, uris: Iterable[str], limits: Limits) -> dict[str, dict[str, Any]]:
        """Uri to the newest row about it, of the manifest or of the quarantine; only the latter have a `reason`.

        What was judged by other limits than `limits` does not count: it must go on record again, or it would be read
        by every ingest.
        """
        return {
            row["uri"]: row
            for row, judged_by in self._records(uris)
            if row.get("reason") not in OF_LIMITS or judged_by == limits.of_size
        }

    def _records(self, uris: Iterable[str]) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
        wanted = pa.array(list(uris), pa.string())
        for name, quarantined in self.quarantined.items() if len(wanted) else ():
            judged_by = _limits(quarantined)
            for table in (self.accepted.get(name), quarantined):
                if table is not None:
                    for row in table.filter(pc.is_in(table["uri"], value_set=wanted)).to_pylist():
                        yield row, judged_by


def read(manifest_folder: Path, quarantine_folder: Path) -> History:
    accepted, quarantined = manifest.read_batches(manifest_folder), manifest.read_batches(quarantine_folder)
    in_force = manifest.current(accepted)
    current = quarantine_folder / CURRENT
    waiting = pq.read_table(current) if current.exists() else manifest.QUARANTINE_SCHEMA.empty_table()
    # The current quarantine is written last: an ingest that was killed just before it has left that of a batch earlier.
    written = int((waiting.schema.metadata or {}).get(BATCH, 0))
    missed = [table.replace_schema_metadata() for name, table in quarantined.items() if int(name) > written]
    if missed:
        waiting = manifest.last_of_uri(pa.concat_tables([waiting.replace_schema_metadata(), *missed]))
        waiting = waiting.filter(pc.invert(pc.is_in(waiting["uri"], value_set=in_force["uri"].combine_chunks())))
    return History(accepted, quarantined, waiting, in_force)


def _limits(quarantined: pa.Table) -> dict[str, int]:
    """The `Limits.of_size` that a batch was judged by, which its quarantine file records."""
    return {name: int(quarantined.schema.metadata[name.encode()]) for name in ("max_pixels", "min_side")}


def _outside(table: pa.Table, place: str) -> pa.Table:
    return table.filter(pc.invert(pc.starts_with(table["uri"], place)))


def _file_notes(notes: list[str] | None) -> tuple[str, ...]:
    return tuple(note for note in notes or () if note != RELEASED)
