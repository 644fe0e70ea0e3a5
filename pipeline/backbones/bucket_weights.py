"""Weights from a bucket: `s3://bucket/key` of a file, of a checkpoint's prefix, or of a folder.

They are kept below $REFIT_HOME/cache/weights/s3 by name and version (ETag), so that each version comes once.
"""

from __future__ import annotations

import hashlib
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline import files
from pipeline.backbones import downloads
from pipeline.errors import DataError, ModelError

if TYPE_CHECKING:
    from pipeline.buckets.bucket import Bucket, Object

LIMIT = 4 * 2**30  # bytes of all files together
FILES = 64  # a SavedModel has about five


def fetch(uri: str) -> Path:
    """The local copy of what lies at `uri`.

    Raises `ModelError` when nothing is there, it is too large or not given out; `SettingsError` and `TransientError`
    as the bucket does.
    """
    from pipeline.buckets.bucket import Bucket

    parts = urlsplit(uri, allow_fragments=False)
    key = parts.path.strip("/")
    if not parts.netloc or not key:
        raise ModelError(f"train.weights: expected s3://bucket/key, got {uri!r}.", fix="name the file's key")
    try:
        return _fetch(uri, Bucket(parts.netloc, ""), Bucket(parts.netloc, f"{key}."), key)
    except DataError as error:
        raise ModelError(f"train.weights: {error.problem}", fix="check the bucket, the key and permissions") from None
    except PermissionError as error:
        raise ModelError(f"train.weights: {uri}: {error}.", fix="allow s3:GetObject on it") from None


def _fetch(uri: str, bucket: Bucket, beside: Bucket, key: str) -> Path:
    name = key.rpartition("/")[2]
    if (item := bucket.find(key)) is not None:
        return _kept(uri, bucket, [(name, item)]) / name
    if bucket.find(f"{key}.index") is not None:  # a checkpoint's prefix
        found = [(f"{name}.{item.key[len(key) + 1 :]}", item) for item in islice(beside.list(), FILES + 1)]
        wanted = [pair for pair in found if re.fullmatch(r".*\.(index|data-\d{5}-of-\d{5})", pair[0])]
        return _kept(uri, bucket, wanted) / name
    folder = type(bucket)(bucket.name, f"{key}/")
    found = [(item.key[len(key) + 1 :], item) for item in islice(folder.list(), FILES + 1)]
    if not found:
        raise ModelError(f"train.weights: nothing lies at {uri}.", fix="check the bucket and the key")
    return _kept(uri, bucket, found)


def _kept(uri: str, bucket: Bucket, items: list[tuple[str, Object]]) -> Path:
    """The folder with these files, downloaded if they are not there."""
    total = sum(item.bytes for _, item in items)
    if total > LIMIT or len(items) > FILES:
        raise ModelError(
            f"train.weights: expected at most {LIMIT >> 30} GiB in {FILES} files at {uri}, got {total >> 20} MiB in "
            f"{len(items)}.",
            fix="name the weights alone",
        )
    if unsafe := [name for name, _ in items if any(part in {"", ".", ".."} for part in name.split("/"))]:
        raise ModelError(f"train.weights: {uri} has a file that no folder can hold: {unsafe[0]!r}.", fix="rename it")
    version = "\n".join([uri, *sorted(f"{name} {item.etag}" for name, item in items)])
    target = downloads.cache() / "s3" / hashlib.sha256(version.encode()).hexdigest()[:32]
    if not target.is_dir():
        with files.replacing_directory(target, one_content=True) as temporary:
            for name, item in items:
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bucket.read(item))
    return target
