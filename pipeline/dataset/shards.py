"""TFRecord shards: written per batch and split, rewritten only when their rows change. Files and keys: docs/formats.md.

The file of an image within its batch and split follows from its id, and so does its place in the file. Ids are
digests, so content is shuffled, and readers need only a small shuffle buffer. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipeline import files
from pipeline.dataset import encoding, images, store, tfrecord
from pipeline.dataset.shard_index import INDEX, VERSION, File, Index, read_index, size_of
from pipeline.progress import track
from pipeline.settings import Shard

AUGMENTED = "augmented"
CHUNK_BYTES = 4 << 20  # of stored images that one task encodes
AHEAD = 4  # chunks for each thread that may wait to be written


@dataclass(frozen=True)
class Row:
    """One record to write. `label` is the index of `text` in the classes."""

    image_id: str
    label: int
    text: str
    group: str
    split: str
    notes: tuple[str, ...]
    bytes: int  # that the record will take, about
    copy: int = 0  # 0: the image itself, else the number of an augmented copy


@dataclass(frozen=True)
class Layout:
    """How images become files; the fields are those of `settings.Shard`."""

    target_bytes: int
    files: int | None
    max_side: int | None
    quality: int
    compression: Literal["none", "gzip"]


def layout(settings: Shard) -> Layout:
    return Layout(**{name: getattr(settings, name) for name in Layout.__dataclass_fields__})


Alter = Callable[[encoding.Encoded, Row], encoding.Encoded]  # makes the augmented copy that a row asks for


def write(
    folder: Path,
    batches: Mapping[str, Sequence[Row]],
    classes: Sequence[str],
    layout: Layout,
    *,
    threads: int,
    recipe: str = "",
    alter: Alter | None = None,
) -> Index:
    """Bring the shards in `folder` up to date with `batches` and write the index, last.

    The files of a batch whose rows are those of the existing index are left alone; those of its augmented copies are
    kept apart, so that other copies do not rewrite the images. The bytes do not depend on `threads`.

    Args:
        threads: that encode. Threads, as reading, decoding and hashing leave Python's lock; processes would
            have to be started and to hand over every byte.
        recipe: what `alter` does, in words that differ when it does something else.
        alter: makes the copies; needed if a row asks for one.

    Raises `DataError` if an image is gone from the store or is not what was ingested.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = read_index(folder)
    parts = _parts(batches)
    digests = {name: _digest(rows, layout, recipe) for name, rows in parts.items()}
    # A writer that was killed may have replaced some files of a part already.
    broken = {_part(entry) for entry in old.files if size_of(folder / entry.path) != entry.bytes}
    stale = [name for name in parts if name in broken or old.digests.get(name) != digests[name]]
    kept = [entry for entry in old.files if _part(entry) in digests and _part(entry) not in stale]
    plans = [plan for name in stale for plan in _plan(name, parts[name], layout)]
    with ThreadPoolExecutor(threads) as pool:
        written = _write_files(folder, plans, layout, alter, pool, AHEAD * threads)
    index = Index(tuple(classes), tuple(sorted((*kept, *written), key=lambda entry: entry.path)), digests)
    files.write_json(folder / INDEX, {"version": VERSION} | asdict(index))
    listed = {folder / entry.path for entry in index.files}
    for found in folder.glob("*/*"):  # of earlier rows, or of a writer that was killed
        if found not in listed:
            found.unlink()
    return index


def _parts(batches: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for name, rows in batches.items():
        for row in rows:
            found[f"{name}-{AUGMENTED}" if row.copy else name].append(row)
    return found


def _part(entry: File) -> str:
    return f"{entry.batch}-{AUGMENTED}" if entry.augmented else entry.batch


def _digest(rows: Sequence[Row], layout: Layout, recipe: str) -> str:
    copies = any(row.copy for row in rows)
    content = [VERSION, asdict(layout), recipe if copies else "", *sorted(tuple(asdict(row).values()) for row in rows)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class _Plan:
    """One file and its rows, in the order in which they are written."""

    path: str
    part: str
    split: str
    rows: Sequence[Row]


def _plan(part: str, rows: Sequence[Row], layout: Layout) -> list[_Plan]:
    plans = []
    suffix = ".gz" if layout.compression == "gzip" else ""
    for split in sorted({row.split for row in rows}):
        chosen = sorted((row for row in rows if row.split == split), key=lambda row: (row.image_id, row.copy))
        count = layout.files or max(1, -(-sum(row.bytes for row in chosen) // layout.target_bytes))
        of_file: list[list[Row]] = [[] for _ in range(count)]
        for row in chosen:
            of_file[int(row.image_id[-8:], 16) % count].append(row)
        plans += [
            _Plan(f"{split}/{split}-{part}-{number:05d}-of-{count:05d}.tfrecord{suffix}", part, split, its_rows)
            for number, its_rows in enumerate(of_file)
        ]
    return plans


def _write_files(
    folder: Path, plans: Sequence[_Plan], layout: Layout, alter: Alter | None, pool: ThreadPoolExecutor, ahead: int
) -> list[File]:
    chunks = [_chunks(plan.rows) for plan in plans]
    # One queue for all files, so that no thread waits for the end of one.
    tasks = [(rows, layout, alter) for of_file in chunks for rows in of_file]
    contents = track(_in_order(pool, tasks, ahead), total=len(tasks), what="Writing shards")
    found, flushed = [], []
    with ThreadPoolExecutor(1) as flusher:  # a disk takes as long to flush a file as it takes to encode the next one
        for plan, of_file in zip(plans, chunks, strict=True):
            with ExitStack() as unfinished:
                temporary = unfinished.enter_context(files.replacing(folder / plan.path))
                crc = 0
                with temporary.open("wb") as stream:
                    for pieces in itertools.islice(contents, len(of_file)):
                        stream.writelines(pieces)
                        crc = tfrecord.checksum(pieces, crc)
                    size = stream.tell()
                flushed.append(flusher.submit(unfinished.pop_all().close))
            batch, augmented = plan.part.removesuffix(f"-{AUGMENTED}"), plan.part.endswith(AUGMENTED)
            found.append(File(plan.path, plan.split, batch, augmented, len(plan.rows), size, f"{crc:08x}"))
    for flush in flushed:
        flush.result()
    return found


def _chunks(rows: Sequence[Row]) -> list[list[Row]]:
    found: list[list[Row]] = []
    size = CHUNK_BYTES
    for row in rows:
        if size >= CHUNK_BYTES:
            found.append([])
            size = 0
        found[-1].append(row)
        size += row.bytes
    return found


def _in_order(
    pool: ThreadPoolExecutor, tasks: Sequence[tuple[Sequence[Row], Layout, Alter | None]], ahead: int
) -> Iterator[list[bytes]]:
    """The results in the order of the tasks, at most `ahead` of them in memory. `Executor.map` starts all at once."""
    waiting: deque[Future[list[bytes]]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_records, *task))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _records(rows: Sequence[Row], layout: Layout, alter: Alter | None) -> list[bytes]:
    pieces = [piece for row in rows for piece in _record(row, layout, alter)]
    return [gzip.compress(b"".join(pieces), mtime=0)] if layout.compression == "gzip" else pieces


def _record(row: Row, layout: Layout, alter: Alter | None) -> list[bytes]:
    try:
        image = encoding.encode(
            store.verified(row.image_id), row.notes, max_side=layout.max_side, quality=layout.quality
        )
        if row.copy:
            if alter is None:
                raise ValueError("alter: expected a function, since a row asks for an augmented copy")
            image = alter(image, row)
    except images.Unreadable as error:
        raise store.unreadable(row.image_id, error) from None
    return tfrecord.record(
        {
            "image/encoded": image.data,
            "image/format": image.format.encode(),
            "image/height": image.height,
            "image/width": image.width,
            "image/class/label": row.label,
            "image/class/text": row.text.encode(),
            "image/id": row.image_id.encode(),
            "image/group": row.group.encode(),
            "image/augmented": row.copy,
        }
    )
