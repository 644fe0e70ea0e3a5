"""The versioned dataset: one Parquet file for each batch of accepted images. Columns: docs/formats.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("source_version", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("bytes", pa.int64()),
        ("batch", pa.string()),
        ("ingested_at", pa.timestamp("us", tz="UTC")),
        ("notes", pa.list_(pa.string())),
        ("removed", pa.bool_()),
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("source_version", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("bytes", pa.int64()),
        ("batch", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def read_batches(folder: Path) -> dict[str, pa.Table]:
    """Batch name to table, in the order of arrival. Empty if the folder is missing."""
    return {path.stem: pq.read_table(path) for path in batch_files(folder)}


def batch_files(folder: Path) -> list[Path]:
    """In the order of arrival, which is that of the numbers: 9999 comes before 10000."""
    return sorted(folder.glob("[0-9]*.parquet"), key=lambda path: int(path.stem))


def next_batch(batches: Iterable[str]) -> str:
    return f"{max(map(int, batches), default=0) + 1:04d}"


def current(batches: Mapping[str, pa.Table]) -> pa.Table:
    """The rows in force, in the order of arrival: the last of each uri, unless it is a tombstone.

    So a file whose bytes or label changed is replaced, and one that left the source is in force no more. Ingest
    sees to it that no image is in force twice.
    """
    return images(last_of_uri(concatenate(batches, SCHEMA)))


def last_of_uri(rows: pa.Table) -> pa.Table:
    """The last row of each uri, in the order of `rows`."""
    last = {uri: number for number, uri in enumerate(rows["uri"].to_pylist())}
    return rows.take(pa.array(sorted(last.values()), pa.int64()))


def images(table: pa.Table) -> pa.Table:
    """The rows of a batch that are images, not tombstones."""
    return table.filter(pc.invert(table["removed"]))


def first_batch(batches: Mapping[str, pa.Table]) -> dict[str, str]:
    """Image id to the batch that it first came with; a file that is renamed or relabelled has a row in a later one."""
    found: dict[str, str] = {}
    for name in sorted(batches, key=int):
        for image_id in images(batches[name])["image_id"].to_pylist():
            found.setdefault(image_id, name)
    return found


def concatenate(batches: Mapping[str, pa.Table], schema: pa.Schema) -> pa.Table:
    """All rows of all batches; an empty table of `schema` if there are none."""
    return pa.concat_tables([schema.empty_table(), *batches.values()])
