"""One ingest: list the source, read what is new, accept it or say why not. Every listed file is accounted for.

What is in force afterwards is a function of what is listed now; the batch is the difference to what was in force
before. So it does not matter in which order files came, went, moved or changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import files
from pipeline.dataset import manifest, store
from pipeline.errors import DataError
from pipeline.ingestion import checking, deciding, history, journal, releases
from pipeline.ingestion.answers import Checked, Limits
from pipeline.ingestion.history import RELEASED, Held, History
from pipeline.ingestion.releases import Release
from pipeline.sources.source import Item, Source

FEW = 5  # images may leave the source at once without question, whatever their share is


@dataclass(frozen=True)
class Batch:
    name: str
    rows: pa.Table  # manifest.SCHEMA: accepted images, then tombstones
    quarantined: pa.Table  # manifest.QUARANTINE_SCHEMA: what was not in quarantine before
    waiting: pa.Table  # manifest.QUARANTINE_SCHEMA: everything in quarantine now
    limits: Limits
    at: datetime
    listed: int
    known: int
    touched: Mapping[Item, Checked]  # files of another version but the same bytes as their row in force; in no batch
    attributes: pa.Table  # of all images in force: what the further columns of a labels file say today

    @property
    def removed(self) -> int:
        return self.rows["removed"].to_pylist().count(True)

    @property
    def accepted(self) -> int:
        return self.rows.num_rows - self.removed

    @property
    def empty(self) -> bool:
        return self.rows.num_rows + self.quarantined.num_rows == 0


def ingest(
    source: Source,
    before: History,
    *,
    released: Sequence[Release],
    limits: Limits,
    max_removed_share: float,
    processes: int,
    now: datetime,
) -> Batch:
    """Read what `source` has beyond the batches so far.

    Args:
        source: its uris begin with its `base`; images in force from elsewhere stay as they are.
        released: what people have decided about files in quarantine, oldest first.
        max_removed_share: of the images in force from `source`; if more are gone at once, something is wrong there.

    Raises `DataError` if the source has no files at all or lacks too many, and what `Source` raises.
    """
    listing = list(source.list())
    if not listing:
        raise DataError(
            "Expected images in one folder per class, found an empty source.", fix="put images into SOURCE/<class>/"
        )
    elsewhere, answers = before.elsewhere(source.base)
    listing = sorted([*listing, *elsewhere], key=lambda item: item.uri)
    _require_unique(listing)
    items, _ = releases.apply(released, listing, {})  # what had no label can be read now
    held = before.held()
    fresh = [item for item in items if item.uri not in answers]
    answers |= _answers(source, fresh, held, before, limits, processes)
    items, decided = releases.apply(released, listing, {uri: found.image_id for uri, found in answers.items()})

    refused = deciding.refuse(items, answers, {row.image_id: uri for uri, row in held.items()}, decided)
    accepted = [item for item in items if item.uri not in refused]
    stands = {item.uri for item in accepted if _stands(held.get(item.uri), item, answers[item.uri])}
    new = [item for item in accepted if item.uri not in stands]
    gone = held.keys() - {item.uri for item in accepted}
    _require_complete(source.base, held, gone, {found.image_id for found in answers.values()}, max_removed_share)

    name = manifest.next_batch(before.quarantined)
    refusals = [item for item in listing if item.uri in refused]
    waiting, news = _quarantine(refusals, refused, before, limits, name)
    batch = Batch(
        name,
        pa.concat_tables([_accept(new, answers, decided, name, now), _bury(before.in_force, gone, name, now)]),
        pa.Table.from_pylist(news, manifest.QUARANTINE_SCHEMA),
        pa.Table.from_pylist(waiting, manifest.QUARANTINE_SCHEMA),
        limits,
        now,
        listed=len(items),
        known=len(items) - len(new) - len(news),
        touched={
            item: answers[item.uri]
            for item in accepted
            if item.uri in stands and held[item.uri].version != item.version
        },
        attributes=_attributes({answers[item.uri].image_id: dict(item.attributes) for item in accepted}),
    )
    _require_conserved(batch, before)
    return batch


def _answers(
    source: Source,
    items: Sequence[Item],
    held: Mapping[str, Held],
    before: History,
    limits: Limits,
    processes: int,
) -> dict[str, Checked]:
    """Uri to what is in the file: known from the listing, from earlier ingests or the journal, else read."""
    answers, changed = {}, []
    for item in items:
        row = held.get(item.uri)
        if item.problem is not None:
            reason, detail = item.problem
            answers[item.uri] = Checked(None, reason=reason, detail=detail)
        elif row is not None and row.version == item.version:
            answers[item.uri] = Checked(row.image_id, row.notes)
        else:
            changed.append(item)
    notebook = journal.path(source.base)
    known = before.recall([item.uri for item in changed], limits) | journal.read(notebook, limits)
    unread = []
    for item in changed:
        found = known.get((item.uri, item.version))
        if found is None or (found.image_id is not None and not store.path(found.image_id).exists()):
            unread.append(item)
        else:
            answers[item.uri] = found
    read = checking.check(source, unread, limits=limits, notebook=notebook, processes=processes)
    return answers | {item.uri: found for item, found in zip(unread, read, strict=True)}


def _stands(row: Held | None, item: Item, found: Checked) -> bool:
    """Whether `row` says of `item` what a new row would. A file that was only touched is no news."""
    return row is not None and (row.image_id, row.label, row.group) == (found.image_id, item.label, item.group)


def _accept(
    items: Iterable[Item], answers: Mapping[str, Checked], decided: Mapping[str, Release], name: str, now: datetime
) -> pa.Table:
    rows = [
        _row(item, answers[item.uri])
        | {"batch": name, "ingested_at": now, "removed": False}
        | {"notes": [*answers[item.uri].notes, *([RELEASED] if item.uri in decided else [])]}
        for item in items
    ]
    return pa.Table.from_pylist(rows, manifest.SCHEMA)


def _bury(in_force: pa.Table, uris: Iterable[str], name: str, now: datetime) -> pa.Table:
    """The tombstones of the rows of `uris`."""
    rows = in_force.filter(pc.is_in(in_force["uri"], value_set=pa.array(list(uris), pa.string()))).sort_by("uri")
    for column, value in (("batch", name), ("ingested_at", now), ("removed", True)):
        kind = manifest.SCHEMA.field(column)
        filled = pa.array([value] * rows.num_rows, kind.type)
        rows = rows.set_column(rows.schema.get_field_index(column), kind, filled)
    return rows


def _quarantine(
    items: Sequence[Item], refused: Mapping[str, Checked], before: History, limits: Limits, name: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows for everything in quarantine, and for those that were not there before or for another reason."""
    waiting, news = [], []
    records = before.last_records([item.uri for item in items], limits)
    for item in items:
        found = refused[item.uri]
        row = _row(item, found) | {"reason": found.reason, "detail": found.detail}
        last = records.get(item.uri, {})
        # Not by the detail, which names other files too and so changes without this one.
        if all(key in last and last[key] == row[key] for key in ("source_version", "label", "reason")):
            waiting.append(row | {"batch": last["batch"]})
        else:
            waiting.append(row | {"batch": name})
            news.append(waiting[-1])
    return waiting, news


def _attributes(of_image: Mapping[str | None, Mapping[str, str]]) -> pa.Table:
    """`image_id` and a column of text for each attribute, sorted by image id; null where an image has none."""
    names = list(dict.fromkeys(name for attributes in of_image.values() for name in attributes))
    schema = pa.schema([("image_id", pa.string()), *((name, pa.string()) for name in names)])
    ids = sorted(image_id for image_id in of_image if image_id is not None) if names else []
    rows = [{"image_id": image_id, **of_image[image_id]} for image_id in ids]
    return pa.Table.from_pylist(rows, schema)


def _row(item: Item, found: Checked) -> dict[str, Any]:
    """The columns that a manifest row and a quarantine row have in common."""
    return {
        "image_id": found.image_id,
        "uri": item.uri,
        "source_version": item.version,
        "label": item.label,
        "group": item.group,
        "bytes": item.bytes,
        "notes": found.notes,
    }


def _require_unique(items: Sequence[Item]) -> None:
    """Bytes that are no UTF-8 are escaped in a uri, so two odd names may look alike."""
    twice = [uri for uri, count in Counter(item.uri for item in items).items() if count > 1]
    if twice:
        raise DataError(
            f"Expected every file once, found {len(twice)} names more than once, for example {twice[0]!r}.",
            fix="rename files whose names differ only in bytes that are no UTF-8",
        )


def _require_complete(
    place: str, held: Mapping[str, Held], gone: Iterable[str], present: set[str | None], allowed: float
) -> None:
    """A mount that is missing or a listing that was cut off must not empty the dataset. Moved files are not gone."""
    lost = sorted(uri for uri in gone if held[uri].image_id not in present)
    if len(lost) <= FEW:
        return
    mine = sum(uri.startswith(place) for uri in held)
    if len(lost) > allowed * mine:
        raise DataError(
            f"Expected at most {allowed:.0%} of the {mine} images in force from {place} to be gone at once "
            f"(ingest.max_removed_share), found {len(lost)} gone or unreadable, for example {lost[0]}.",
            fix="check that the source is mounted and complete; "
            "if the removal is meant: --set ingest.max_removed_share=1",
        )


def _require_conserved(batch: Batch, before: History) -> None:
    """Raises `DataError` unless every listed file is either in force now or in quarantine, and each image once."""
    in_force = manifest.current({**before.accepted, batch.name: batch.rows})
    images = pc.count_distinct(in_force["image_id"]).as_py()
    if not (images == in_force.num_rows == batch.listed - batch.waiting.num_rows):
        raise DataError(
            f"Batch {batch.name} does not add up: {batch.listed} files listed, {in_force.num_rows} in force "
            f"({images} images), {batch.waiting.num_rows} in quarantine.",
            fix="ingest the source in a new REFIT_HOME, and report this with data/manifest and data/quarantine",
        )


def write(batch: Batch, manifest_folder: Path, quarantine_folder: Path) -> None:
    """Add `batch` to the dataset.

    The numbered quarantine file is written for every batch, after the manifest's: it is the commit mark. What is in
    quarantine now can be made again from both, so it comes last.
    """
    if batch.rows.num_rows:
        files.write_table(manifest_folder / f"{batch.name}.parquet", batch.rows)
    if not batch.empty:
        facts = {"at": batch.at.isoformat(), "listed": batch.listed, "known": batch.known, **batch.limits.of_size}
        quarantined = batch.quarantined.replace_schema_metadata({key: str(value) for key, value in facts.items()})
        files.write_table(quarantine_folder / f"{batch.name}.parquet", quarantined)
    newest = manifest.batch_files(quarantine_folder)[-1].stem
    waiting = batch.waiting.replace_schema_metadata({history.BATCH: newest})
    files.write_table(quarantine_folder / history.CURRENT, waiting)


def clear_uncommitted(manifest_folder: Path, quarantine_folder: Path) -> None:
    """Remove what an ingest left that was killed while it wrote."""
    for folder in (manifest_folder, quarantine_folder):
        folder.mkdir(parents=True, exist_ok=True)
        files.clear_temporaries(folder)
    for path in manifest_folder.glob("[0-9]*.parquet"):
        if not (quarantine_folder / path.name).exists():
            path.unlink()


def summary(past: History) -> dict[str, Any]:
    """metrics/ingest.json."""
    return {
        "images": past.in_force.num_rows,
        "classes": _counts(past.in_force["label"]),
        "quarantined": _counts(past.waiting["reason"]),
        "notes": _counts(past.in_force["notes"], lists=True),
        "batches": [_batch_summary(name, table, past.accepted.get(name)) for name, table in past.quarantined.items()],
    }


def _batch_summary(name: str, quarantined: pa.Table, rows: pa.Table | None) -> dict[str, Any]:
    rows = manifest.SCHEMA.empty_table() if rows is None else rows
    accepted = manifest.images(rows)
    return {
        "batch": name,
        "listed": int(quarantined.schema.metadata[b"listed"]),
        "known": int(quarantined.schema.metadata[b"known"]),
        "accepted": accepted.num_rows,
        "removed": rows.num_rows - accepted.num_rows,
        "quarantined": _counts(quarantined["reason"]),
        "notes": _counts(accepted["notes"], lists=True),
    }


def _counts(column: pa.ChunkedArray, *, lists: bool = False) -> dict[str, int]:
    values = pc.list_flatten(column) if lists else column
    return dict(sorted(Counter(values.to_pylist()).items()))
