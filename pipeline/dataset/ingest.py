"""One ingest: list the source, read what is new, accept it or say why not. Every listed file is accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import files, workers
from pipeline.dataset import images, manifest, store
from pipeline.dataset.sources import Item, Source
from pipeline.errors import DataError
from pipeline.progress import track

CHUNK = 32  # images a worker reads per call: enough to hide the call's cost, few enough for smooth progress
DUPLICATE = "exact-duplicate"
CONFLICT = "label-conflict"
NO_IMAGE = {"empty", "not-an-image", "damaged"}  # verdicts on the bytes alone


@dataclass(frozen=True)
class Limits:
    max_bytes: int
    max_pixels: int


@dataclass(frozen=True)
class Checked:
    """What a worker found: an image id, and the reason if the image cannot be used."""

    image_id: str | None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Batch:
    name: str
    accepted: pa.Table  # manifest.SCHEMA
    quarantined: pa.Table  # manifest.QUARANTINE_SCHEMA
    listed: int
    known: int

    @property
    def empty(self) -> bool:
        return self.accepted.num_rows + self.quarantined.num_rows == 0


def ingest(
    source: Source,
    accepted: Mapping[str, pa.Table],
    quarantined: Mapping[str, pa.Table],
    *,
    limits: Limits,
    processes: int,
    now: datetime,
) -> Batch:
    """Read what `source` has beyond the batches so far.

    Raises `DataError` if the source has no files at all, and what `Source` raises.
    """
    listing = sorted(source.list(), key=lambda item: item.uri)
    if not listing:
        raise DataError(
            "Expected images in one folder per class, found an empty source.", fix="put images into SOURCE/<class>/"
        )
    rows = manifest.current(accepted).select(["image_id", "uri", "source_version", "label"]).to_pylist()
    in_force = {(row["uri"], row["source_version"], row["label"]) for row in rows}
    unchanged = {item.uri for item in listing if (item.uri, item.version, item.label) in in_force}
    candidates = [item for item in listing if item.uri not in unchanged]
    memory = _memory(accepted, quarantined)
    name = manifest.next_batch({**accepted, **quarantined})
    answers = {item.uri: _recall(item, memory) for item in candidates}
    unread = [item for item in candidates if answers[item.uri] is None]
    answers.update(
        zip((item.uri for item in unread), check(source, unread, limits=limits, processes=processes), strict=True)
    )
    checks = [found for item in candidates if (found := answers[item.uri]) is not None]
    good, bad = _decide(candidates, checks, {row["image_id"]: row for row in rows}, unchanged)
    # What is quarantined for the same reason as before is on record already.
    news = [(item, found) for item, found in bad if memory.get((item.uri, item.version, item.label)) != found]
    known = len(unchanged) + len(bad) - len(news)
    if known + len(good) + len(news) != len(listing):
        raise DataError(
            f"Batch {name} does not add up: {len(listing)} files listed, {known} known, {len(good)} accepted, "
            f"{len(news)} quarantined.",
            fix="rename files whose names differ only in bytes that are no UTF-8",
        )

    def row(item: Item) -> dict[str, Any]:
        return {
            "uri": item.uri,
            "source_version": item.version,
            "label": item.label,
            "bytes": item.bytes,
            "batch": name,
        }

    return Batch(
        name,
        pa.Table.from_pylist(
            [row(item) | {"image_id": image_id, "group": None, "ingested_at": now} for item, image_id in good],
            manifest.SCHEMA,
        ),
        pa.Table.from_pylist(
            [
                row(item) | {"image_id": found.image_id, "reason": found.reason, "detail": found.detail}
                for item, found in news
            ],
            manifest.QUARANTINE_SCHEMA,
        ),
        listed=len(listing),
        known=known,
    )


def check(source: Source, items: Sequence[Item], *, limits: Limits, processes: int) -> list[Checked]:
    """Read and decode every item, in worker processes if there are many; the answers are in the order of `items`."""
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    with workers.pool(processes if len(chunks) > 2 else 1) as pool:
        mapper = map if pool is None else pool.map
        answers = mapper(check_chunk, [source] * len(chunks), chunks, [limits] * len(chunks))
        return [answer for chunk in track(answers, total=len(chunks), what="ingest") for answer in chunk]


def check_chunk(source: Source, items: Sequence[Item], limits: Limits) -> list[Checked]:
    return [check_one(source, item, limits) for item in items]


def check_one(source: Source, item: Item, limits: Limits) -> Checked:
    """Read, decode and store one image. Errors of the source itself (`RefitError`) pass through."""
    if item.label is None:
        return Checked(None, "no-label", "lies right below the source instead of in a class folder")
    if not item.regular:
        return Checked(None, "not-a-file", "a broken link, a pipe, a socket or a device")
    if item.bytes > limits.max_bytes:
        return Checked(None, "too-many-bytes", f"{item.bytes} bytes, more than ingest.max_bytes = {limits.max_bytes}")
    try:
        data = source.read(item)
        images.decode(data, limits.max_pixels)
    except images.Unreadable as error:
        return Checked(None, error.reason, error.detail)
    except OSError as error:
        return Checked(None, "unreadable-file", error.strerror or str(error))
    return Checked(store.put(data))


def _memory(
    accepted: Mapping[str, pa.Table], quarantined: Mapping[str, pa.Table]
) -> dict[tuple[str, str, str | None], Checked]:
    """What has been found before, the newest last: (uri, version, label) to the answer."""
    memory = {}
    for name in sorted({*accepted, *quarantined}):
        for table in (accepted.get(name), quarantined.get(name)):
            for row in table.to_pylist() if table is not None else []:
                found = Checked(row["image_id"], row.get("reason"), row.get("detail"))
                memory[row["uri"], row["source_version"], row["label"]] = found
    return memory


def _recall(item: Item, memory: Mapping[tuple[str, str, str | None], Checked]) -> Checked | None:
    """What need not be read again: its bytes are known, or are no image whatever the settings are."""
    found = memory.get((item.uri, item.version, item.label))
    if found is None or (found.image_id is None and found.reason not in NO_IMAGE):
        return None
    return Checked(found.image_id) if found.image_id else found


def _decide(
    items: Sequence[Item], checks: Sequence[Checked], current: Mapping[str, Mapping[str, Any]], unchanged: set[str]
) -> tuple[list[tuple[Item, str]], list[tuple[Item, Checked]]]:
    """Accept each image once; the same bytes under two labels are nobody's to decide, so all of them wait.

    `current`: image id to its manifest row. `unchanged`: uris whose file is as that row says.
    """
    labels: dict[str, set[str | None]] = {}
    for item, found in zip(items, checks, strict=True):
        if found.image_id is not None:
            labels.setdefault(found.image_id, set()).add(item.label)
    for image_id, row in current.items():
        # A known image whose file is gone, or now belongs to another class, has been relabelled: no conflict.
        if image_id in labels and row["uri"] in unchanged:
            labels[image_id].add(row["label"])

    good: list[tuple[Item, str]] = []
    bad: list[tuple[Item, Checked]] = []
    holder = {image_id: (row["uri"], row["label"]) for image_id, row in current.items()}
    for item, found in zip(items, checks, strict=True):
        if found.image_id is None:
            bad.append((item, found))
        elif len(labels[found.image_id]) > 1:
            names = ", ".join(sorted(str(label) for label in labels[found.image_id]))
            bad.append((item, Checked(found.image_id, CONFLICT, f"the same bytes lie in several classes: {names}")))
        elif found.image_id in holder and holder[found.image_id][1] == item.label:
            bad.append((item, Checked(found.image_id, DUPLICATE, f"the same bytes as {holder[found.image_id][0]}")))
        else:
            good.append((item, found.image_id))
            holder[found.image_id] = (item.uri, item.label)
    return good, bad


def write(batch: Batch, manifest_folder: Path, quarantine_folder: Path) -> None:
    """Add `batch` to the dataset. The quarantine file is written for every batch, last: it is the commit mark."""
    if batch.accepted.num_rows:
        files.write_table(manifest_folder / f"{batch.name}.parquet", batch.accepted)
    counts = {"listed": str(batch.listed), "known": str(batch.known)}
    files.write_table(quarantine_folder / f"{batch.name}.parquet", batch.quarantined.replace_schema_metadata(counts))


def clear_uncommitted(manifest_folder: Path, quarantine_folder: Path) -> None:
    """Remove what an ingest left that was killed while it wrote."""
    for folder in (manifest_folder, quarantine_folder):
        folder.mkdir(parents=True, exist_ok=True)
        files.clear_temporaries(folder)
    for path in manifest_folder.glob("[0-9]*.parquet"):
        if not (quarantine_folder / path.name).exists():
            path.unlink()


def summary(accepted: Mapping[str, pa.Table], quarantined: Mapping[str, pa.Table]) -> dict[str, Any]:
    """metrics/ingest.json."""
    rows = manifest.current(accepted)
    return {
        "images": rows.num_rows,
        "classes": dict(sorted(Counter(rows["label"].to_pylist()).items())),
        "batches": [
            {
                "batch": name,
                "listed": int(table.schema.metadata[b"listed"]),
                "known": int(table.schema.metadata[b"known"]),
                "accepted": accepted[name].num_rows if name in accepted else 0,
                "quarantined": dict(sorted(Counter(table["reason"].to_pylist()).items())),
            }
            for name, table in quarantined.items()
        ],
    }
