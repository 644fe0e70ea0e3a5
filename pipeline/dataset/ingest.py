"""One ingest: list the source, read what is new, accept it or say why not. Every listed file is accounted for."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import files
from pipeline.dataset import images, manifest, store
from pipeline.dataset.sources import Item, Source
from pipeline.errors import DataError
from pipeline.progress import track

CHUNK = 32  # images a worker reads per call: enough to hide the call's cost, few enough for smooth progress
DUPLICATE = "exact-duplicate"
CONFLICT = "label-conflict"


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
    seen = {
        (row["uri"], row["source_version"], row["label"])
        for batches in (accepted, quarantined)
        for table in batches.values()
        for row in table.select(["uri", "source_version", "label"]).to_pylist()
    }
    new = [item for item in listing if (item.uri, item.version, item.label) not in seen]
    name = manifest.next_batch({**accepted, **quarantined})
    checks = check(source, new, limits=limits, processes=processes)
    rows = manifest.current(accepted).select(["image_id", "uri", "label"]).to_pylist()
    listed_uris = {item.uri for item in listing}
    good, bad = _decide(new, checks, current={row["image_id"]: row for row in rows}, listed_uris=listed_uris)

    def row(item: Item) -> dict[str, Any]:
        return {
            "uri": item.uri,
            "source_version": item.version,
            "label": item.label,
            "bytes": item.bytes,
            "batch": name,
        }

    batch = Batch(
        name,
        pa.Table.from_pylist(
            [row(item) | {"image_id": image_id, "group": None, "ingested_at": now} for item, image_id in good],
            manifest.SCHEMA,
        ),
        pa.Table.from_pylist(
            [row(item) | {"reason": found.reason, "detail": found.detail} for item, found in bad],
            manifest.QUARANTINE_SCHEMA,
        ),
        listed=len(listing),
        known=len(listing) - len(new),
    )
    if batch.known + batch.accepted.num_rows + batch.quarantined.num_rows != batch.listed:
        raise DataError(
            f"Batch {name} does not add up: {batch.listed} files listed, {batch.known} known, "
            f"{batch.accepted.num_rows} accepted, {batch.quarantined.num_rows} quarantined.",
            fix="this is a defect of Refit: please report it with this line",
        )
    return batch


def check(source: Source, items: Sequence[Item], *, limits: Limits, processes: int) -> list[Checked]:
    """Read and decode every item, in worker processes if there are many; the answers are in the order of `items`."""
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    with executor(processes if len(chunks) > 2 else 1) as pool:
        mapper = map if pool is None else pool.map
        answers = mapper(check_chunk, [source] * len(chunks), chunks, [limits] * len(chunks))
        return [answer for chunk in track(answers, total=len(chunks), what="ingest") for answer in chunk]


@contextmanager
def executor(processes: int) -> Iterator[Executor | None]:
    """A pool of fresh processes, or None where one process is enough (starting a pool costs half a second)."""
    if processes == 1:
        yield None
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


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


def _decide(
    items: Sequence[Item],
    checks: Sequence[Checked],
    *,
    current: Mapping[str, Mapping[str, Any]],
    listed_uris: set[str],
) -> tuple[list[tuple[Item, str]], list[tuple[Item, Checked]]]:
    """Accept each image once; the same bytes under two labels are nobody's to decide, so all of them wait."""
    labels: dict[str, set[str | None]] = {}
    for item, found in zip(items, checks, strict=True):
        if found.image_id is not None:
            labels.setdefault(found.image_id, set()).add(item.label)
    unchanged_uris = listed_uris - {item.uri for item in items}
    for image_id, row in current.items():
        # A known image whose file is gone, or now belongs to another class, has been relabelled: no conflict.
        if image_id in labels and row["uri"] in unchanged_uris:
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
