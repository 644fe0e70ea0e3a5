"""`data/duplicates`: for each batch, the near-duplicate pairs of its images with each other and with earlier ones.

A file is written once and again only if what it was made from has changed, so the cost follows the new images.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.dataset import appearances, crop_search, duplicates
from pipeline.dataset.duplicate_links import SCHEMA

_VERSION = 2  # of the rule below and of what the columns mean
_KEY = b"refit.made_from"


@dataclass(frozen=True)
class Rules:
    """What makes two images near duplicates: `profile.near_duplicate_…` of params.yaml."""

    bits: int
    error: float
    detail: float
    searched: int


def update(folder: Path, features: Mapping[str, pa.Table], rules: Rules, processes: int) -> None:
    """Make `folder` hold the pairs of exactly these batches of feature rows (docs/formats.md), in their order.

    Raises `DataError` if the bytes of an image are gone from the store or are damaged there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.clear_temporaries(folder)
    for path in folder.glob("*.parquet"):
        if path.stem not in features:
            path.unlink()
    made_from = hashlib.sha256(f"{_VERSION} {rules}".encode())
    number: dict[str, int] = {}
    clusters = np.empty(0, np.int64)
    hashes, thumbnails = np.empty(0, np.uint64), np.empty((0, duplicates.THUMBNAIL_BYTES), np.uint8)
    sides = np.empty(0, np.int64)
    for name, table in features.items():
        fresh = _first_rows(table, number)
        first_new = len(number)
        number.update({image_id: first_new + row for row, image_id in enumerate(fresh["image_id"].to_pylist())})
        hashes = np.concatenate([hashes, fresh["dhash"].to_numpy().astype(np.int64).view(np.uint64)])
        thumbnails = np.concatenate([thumbnails, _thumbnails(fresh)])
        sides = np.concatenate([sides, _short_sides(fresh)])
        made_from.update(f"{table.schema.metadata} {list(number)[first_new:]}".encode())
        path = folder / f"{name}.parquet"
        key = {_KEY: made_from.hexdigest()}
        if path.exists() and (pq.read_schema(path).metadata or {}).get(_KEY) == key[_KEY].encode():
            pairs = _numbers(pq.read_table(path), number)
        else:
            seen = duplicates.as_stored(hashes, thumbnails), appearances.standardised(thumbnails, rules.error)
            found = [
                duplicates.links(each, clusters, first_new=first_new, bits=rules.bits, error=rules.error)
                for each in seen
            ]
            if rules.searched:
                pool, load = _pool(list(number), sides, rules.searched), partial(_picture, list(number))
                found.append(crop_search.find(thumbnails, first_new, pool, load, rules.detail, processes))
            pairs = np.unique(np.concatenate(found), axis=0)
            files.write_table(path, _table(pairs, list(number), first_new).replace_schema_metadata(key))
        own = pairs[(pairs >= first_new).all(axis=1)] - first_new
        clusters = np.append(clusters, duplicates.components(len(number) - first_new, own) + first_new)


def clusters(image_ids: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Image id to the name of its cluster, of those of `image_ids` that share one with another of them.

    Two images are of one cluster also if only an image that is not among `image_ids` connects them.
    """
    groups = duplicates.Groups()
    connected = set()
    for one, other in pairs:
        groups.join(one, other)
        connected |= {one, other}
    cluster = {image_id: groups.representative(image_id) for image_id in image_ids if image_id in connected}
    size = Counter(cluster.values())
    return {image_id: name for image_id, name in cluster.items() if size[name] > 1}


def searched(features: Mapping[str, pa.Table], limit: int) -> set[str]:
    """Image ids of those that have all been compared with each other, pixel by pixel: for crops and the like."""
    side: dict[str, int] = {}
    for table in features.values():
        side |= dict(zip(table["image_id"].to_pylist(), _short_sides(table).tolist(), strict=True))
    ids = list(side)
    return {ids[number] for number in _pool(ids, np.array(list(side.values()), np.int64), limit)}


def _pool(ids: Sequence[str], sides: duplicates.Indices, limit: int) -> duplicates.Indices:
    """The `limit` smallest ids of images that are large enough: a random sample, as ids are hashes, and of whatever has
    been compared before, those that remain in it have all been.
    """
    large = np.flatnonzero(sides >= crop_search.MIN_SIDE).tolist()
    return np.array(sorted(sorted(large, key=ids.__getitem__)[:limit]), np.int64)


def _picture(ids: Sequence[str], number: int) -> crop_search.Picture:
    return crop_search.picture(ids[number])


def _short_sides(table: pa.Table) -> duplicates.Indices:
    return np.minimum(table["width"].to_numpy(), table["height"].to_numpy()).astype(np.int64)


def _first_rows(table: pa.Table, known: Mapping[str, int]) -> pa.Table:
    """One row for each image that is not `known`; a renamed file has the image of an earlier batch."""
    first: dict[str, int] = {}
    for row, image_id in enumerate(table["image_id"].to_pylist()):
        if image_id not in known:
            first.setdefault(image_id, row)
    return table.take(pa.array(first.values(), pa.int64()))


def _thumbnails(table: pa.Table) -> duplicates.Thumbnails:
    return np.frombuffer(b"".join(table["thumbnail"].to_pylist()), np.uint8).reshape(-1, duplicates.THUMBNAIL_BYTES)


def _table(pairs: duplicates.Indices, ids: list[str], first_new: int) -> pa.Table:
    columns = {
        "image_id": [ids[number] for number in pairs[:, 1]],
        "other": [ids[number] for number in pairs[:, 0]],
        "earlier": pairs[:, 0] < first_new,
    }
    return pa.table(columns, SCHEMA)


def _numbers(table: pa.Table, number: Mapping[str, int]) -> duplicates.Indices:
    columns = [[number[image_id] for image_id in table[name].to_pylist()] for name in ("other", "image_id")]
    return np.array(columns, np.int64).reshape(2, -1).T
