"""`data/features`: one file of feature rows for each batch of the manifest, row for row, each written once.

A file is written anew only if it is missing, was measured by another version of the definitions, or its rows are
not those of the manifest; and then only the images that no other file knows are measured, so the cost of a run
follows the new images. A tombstone has no row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import files, workers
from pipeline.dataset import images, manifest, store
from pipeline.dataset.reduced import Reduced, reduced
from pipeline.errors import DataError
from pipeline.profiling import features
from pipeline.progress import track

logger = logging.getLogger(__name__)

CHUNK = 64  # images of one task: 0.1 s of work, so that the bar moves and no process idles at the end
# A pool takes 0.8 s to start. Two processes make up for it in 1.6 s of work, which is 100 MB of photographs as JPEG;
# of small images each takes 0.25 ms, as long as 15 kB of a photograph.
POOL_FROM = 100_000_000  # bytes
OVERHEAD = 15_000  # bytes
_VERSION_KEY = b"refit.features_version"

Map = Callable[[Callable[[list[str]], Mapping[str, Any]], Iterable[list[str]]], Iterable[Mapping[str, Any]]]


def update(folder: Path, batches: Mapping[str, pa.Table], processes: int) -> list[str]:
    """Make `folder` hold the feature rows of exactly the images of `batches`; returns the names of those written.

    Raises `DataError` if the bytes of an image are gone from the store or are damaged there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.clear_temporaries(folder)
    wanted = {name: manifest.images(rows) for name, rows in batches.items()}
    stale = {name: rows for name, rows in wanted.items() if not _is_fresh(_file(folder, name), rows)}
    known = _known(folder, stale.values())
    work = sum(_work(rows, known) for rows in stale.values())
    with workers.pool(processes if work >= POOL_FROM else 1) as pool:
        for name, rows in stale.items():
            new = _unknown(rows, known)["image_id"].to_pylist()
            known = pa.concat_tables([known, *_measure_all(name, new, map if pool is None else pool.map)])
            files.write_table(_file(folder, name), _rows(rows, known))
            logger.info("profile: batch %s, %d images, %d measured", name, rows.num_rows, len(new))
    for path in folder.glob("*.parquet"):
        if path.stem not in batches:
            path.unlink()
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


def by_arrival(table: pa.Table, manifest_batches: Mapping[str, pa.Table]) -> pa.Table:
    """`table` with the batch that each image first came with, in `batch`: a file that was moved is no new image."""
    first = manifest.first_batch(manifest_batches)
    batch = pa.array([first[image_id] for image_id in table["image_id"].to_pylist()], pa.string())
    return table.set_column(table.schema.get_field_index("batch"), "batch", batch)


def trained_on(training: pa.Table, feature_batches: Mapping[str, pa.Table]) -> pa.Table:
    """The feature rows of a model's training images by the definitions of today, which may not be those of its time."""
    measured = manifest.concatenate(feature_batches, features.SCHEMA)
    known = training.filter(pc.is_in(training["image_id"], value_set=measured["image_id"]))
    if known.num_rows < training.num_rows:
        missing = training.num_rows - known.num_rows
        logger.warning("profile: %d of the live model's training images are in no batch and not compared", missing)
    return _rows(known, measured.drop(["batch", "label"]))


def _keys(table: pa.Table) -> Iterator[tuple[str, ...]]:
    return zip(*(table[name].to_pylist() for name in features.IDENTITY), strict=True)


def _file(folder: Path, batch: str) -> Path:
    return folder / f"{batch}.parquet"


def _is_current(path: Path) -> bool:
    """Whether there is a file, and it was measured by these definitions."""
    version = (pq.read_schema(path).metadata or {}).get(_VERSION_KEY) if path.exists() else None
    return bool(version == str(features.VERSION).encode())


def _is_fresh(path: Path, rows: pa.Table) -> bool:
    names = list(features.IDENTITY)
    return _is_current(path) and bool(pq.read_table(path, columns=names).equals(rows.select(names)))


def _known(folder: Path, wanted: Iterable[pa.Table]) -> pa.Table:
    """What files here already say of the images `wanted`: a folder that was renamed is not measured again."""
    ids = pa.chunked_array([chunk for rows in wanted for chunk in rows["image_id"].chunks], pa.string())
    found = [features.SCHEMA.empty_table()]
    for path in manifest.batch_files(folder) if len(ids) else []:
        if _is_current(path):
            table = pq.read_table(path)
            found.append(table.filter(pc.is_in(table["image_id"], value_set=ids)))
    return pa.concat_tables(found).drop(["batch", "label"])


def _unknown(rows: pa.Table, known: pa.Table) -> pa.Table:
    """`image_id` and `bytes` of the images without features, each once."""
    rows = rows.filter(pc.invert(pc.is_in(rows["image_id"], value_set=known["image_id"])))
    return rows.group_by("image_id").aggregate([("bytes", "max")])


def _work(rows: pa.Table, known: pa.Table) -> int:
    """What measuring costs, in bytes of JPEG."""
    new = _unknown(rows, known)
    return OVERHEAD * new.num_rows + sum(new["bytes_max"].to_pylist())


def _rows(rows: pa.Table, known: pa.Table) -> pa.Table:
    """The feature rows of manifest rows; the same image may be in several batches, under several labels."""
    numbers = pc.index_in(rows["image_id"], value_set=known["image_id"])
    if numbers.null_count:
        raise DataError(
            f"Expected {rows.num_rows} feature rows, {numbers.null_count} were not measured.",
            fix="report this as a fault of Refit",
        )
    found = known.take(numbers)
    columns = [(rows if field.name in features.IDENTITY else found)[field.name] for field in features.SCHEMA]
    return pa.table(columns, features.SCHEMA.with_metadata({_VERSION_KEY: str(features.VERSION)})).combine_chunks()


def _measure_all(batch: str, ids: list[str], apply: Map) -> list[pa.Table]:
    """Tables of `image_id` and the features."""
    chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    schema = pa.schema([field for field in features.SCHEMA if field.name not in ("batch", "label")])
    tables = []

    def one_by_one() -> Iterator[None]:
        for chunk, columns in zip(chunks, apply(_measure, chunks), strict=True):
            tables.append(pa.table({"image_id": chunk, **columns}, schema))
            yield from [None] * len(chunk)

    for _ in track(one_by_one(), total=len(ids), what=f"Measuring batch {batch}"):
        pass
    return tables


def _measure(ids: list[str]) -> Mapping[str, Any]:
    """The features of images of the store; runs in a worker process."""
    return features.columns([_copy(image_id) for image_id in ids])


def _copy(image_id: str) -> Reduced:
    try:
        return reduced(store.get(image_id), features.MEASURED_SIDE)
    except images.Unreadable as error:
        raise store.unreadable(image_id, error) from None
