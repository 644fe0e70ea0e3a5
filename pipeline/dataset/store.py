"""The images' bytes by content: `$REFIT_HOME/images/<first two digits>/<sha256>`.

A run reads images only from here, so moving, changing or deleting a file at its source never changes a run
that has seen it, and an S3 object is fetched once. With execution.remote, what is missing here is fetched from
`images/` there, where `pipeline.runs.remote` has put it.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import DataError
from pipeline.settings import refit_home, remote_location

if TYPE_CHECKING:
    from pipeline.buckets.objects import Objects

_FIX = "restore $REFIT_HOME/images from a backup, or ingest the source again in a new REFIT_HOME"


def path(image_id: str) -> Path:
    return refit_home() / "images" / image_id[:2] / image_id


def present(image_id: str) -> Path:
    """`path`; the image is there, if it is to be had.

    Raises `TransientError` if the bucket does not answer, `SettingsError` if it does not let us in.
    """
    target = path(image_id)
    if not target.exists() and (location := remote_location()) is not None:
        data = _shared(location).read(f"images/{image_id[:2]}/{image_id}")
        if data is not None and hashlib.sha256(data).hexdigest() == image_id:
            files.write_bytes(target, data)
    return target


def put(data: bytes) -> str:
    """Keep `data`, once; returns its image id."""
    image_id = hashlib.sha256(data).hexdigest()
    target = path(image_id)
    if not target.exists():
        files.write_bytes(target, data)
    return image_id


def get(image_id: str) -> bytes:
    """The bytes of an image. Raises `DataError` if they are gone."""
    try:
        return present(image_id).read_bytes()
    except FileNotFoundError:
        raise DataError(f"Expected an image in the image store, {path(image_id)} is missing.", fix=_FIX) from None


def verified(image_id: str) -> bytes:
    """The bytes of an image, after a look at whether they are still those that it is named for.

    Raises `DataError` if they are not, or are gone.
    """
    data = get(image_id)
    if hashlib.sha256(data).hexdigest() != image_id:
        raise DataError(f"Expected the image that was ingested, {path(image_id)} holds other bytes.", fix=_FIX)
    return data


def unreadable(image_id: str, reason: Exception) -> DataError:
    """The error to raise over an image that could be decoded when it was ingested."""
    return DataError(f"Expected a readable image in the image store, {path(image_id)} is not ({reason}).", fix=_FIX)


@functools.cache
def _shared(location: str) -> Objects:
    from pipeline.buckets.objects import remote  # boto3 takes 0.3 s to import, which a shared disk need not pay

    return remote(location)
