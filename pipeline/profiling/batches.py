"""`data/features`: one file of feature rows for each batch of the manifest, row for row, each written once.

A file is written anew only if it is missing, was measured by another version of the definitions, or its rows are
not those of the manifest, so the cost of a run follows the new images.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files, workers
from pipeline.dataset import images, manifest, store
from pipeline.errors import DataError
from pipeline.profiling import features
from pipeline.progress import track

logger = logging.getLogger(__name__)

CHUNK = 32  # images of one task: under 0.2 s of work, so that the bar moves and no process idles at the end
# Starting processes costs each about 0.8 s, in which this one measures 250 photographs or 1300 thumbnails itself.
POOL_FROM = 1024  # images
_VERSION_KEY = b"refit.features_version"

Map = Callable[[Callable[["pa.Table"], "pa.Table"], Iterable[pa.Table]], Iterable[pa.Table]]


def update(folder: Path, batches: Mapping[str, pa.Table], processes: int) -> list[str]:
    """Make `folder` hold the feature rows of exactly `batches`; returns the names of those that were measured.

    Raises `DataError` if the bytes of an image are gone from the store or are damaged there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.clear_temporaries(folder)
    for path in folder.glob("*.parquet"):
        if path.stem not in batches:
            path.unlink()
    stale = {name: rows for name, rows in batches.items() if not _is_fresh(_file(folder, name), rows)}
    many = sum(rows.num_rows for rows in stale.values()) >= POOL_FROM
    with workers.pool(processes if many else 1) as pool:
        apply = map if pool is None else pool.map
        for name, rows in stale.items():
            files.write_table(_file(folder, name), _measure_batch(name, rows, apply))
            logger.info("profile: batch %s, %d images measured", name, rows.num_rows)
    return list(stale)


def current(manifest_batches: Mapping[str, pa.Table], feature_batches: Mapping[str, pa.Table]) -> pa.Table:
    """The feature rows of the current images, in the manifest's order, with their `uri` as a last column.

    Raises `DataError` if an image has no feature row.
    """
    rows = manifest.current(manifest_batches)
    measured = manifest.concatenate(feature_batches, features.SCHEMA)
    number_of = {key: number for number, key in enumerate(_keys(measured))}
    numbers = [number_of.get(key) for key in _keys(rows)]
    missing = numbers.count(None)
    if missing:
        raise DataError(
            f"Expected a feature row for each of {rows.num_rows} images, found none for {missing}.",
            fix="run the stage profile again",
        )
    return measured.take(pa.array(numbers, pa.int64())).append_column("uri", rows["uri"])


def _file(folder: Path, batch: str) -> Path:
    return folder / f"{batch}.parquet"


def _keys(table: pa.Table) -> Iterator[tuple[str, ...]]:
    return zip(*(table[name].to_pylist() for name in features.IDENTITY), strict=True)


def _is_fresh(path: Path, rows: pa.Table) -> bool:
    if not path.exists():
        return False
    if (pq.read_schema(path).metadata or {}).get(_VERSION_KEY) != str(features.VERSION).encode():
        return False
    return list(_keys(pq.read_table(path, columns=list(features.IDENTITY)))) == list(_keys(rows))


def _measure_batch(name: str, rows: pa.Table, apply: Map) -> pa.Table:
    chunks = [rows.slice(start, CHUNK) for start in range(0, rows.num_rows, CHUNK)]
    measured = [features.SCHEMA.empty_table()]

    def one_by_one() -> Iterator[None]:
        for table in apply(_measure, chunks):
            measured.append(table)
            yield from [None] * table.num_rows

    for _ in track(one_by_one(), total=rows.num_rows, what=f"Measuring batch {name}"):
        pass
    table = pa.concat_tables(measured).combine_chunks()
    if table.num_rows != rows.num_rows:
        raise DataError(
            f"Batch {name}: expected {rows.num_rows} feature rows, measured {table.num_rows}.",
            fix="report this as a fault of Refit",
        )
    return table.replace_schema_metadata({_VERSION_KEY: str(features.VERSION)})


def _measure(rows: pa.Table) -> pa.Table:
    """Feature rows of manifest rows; runs in a worker process."""
    measured = []
    for row in rows.select(features.IDENTITY).to_pylist():
        content = store.get(row["image_id"])
        try:
            decoded = images.decode(content, sys.maxsize)  # the size was judged at ingest
        except images.Unreadable as error:
            raise DataError(
                f"Expected a readable image in the image store, {store.path(row['image_id'])} is not ({error}).",
                fix="restore $REFIT_HOME/images from a backup, or ingest the source again in a new REFIT_HOME",
            ) from None
        measured.append(row | features.measure(decoded, len(content)))
    return pa.Table.from_pylist(measured, schema=features.SCHEMA)
