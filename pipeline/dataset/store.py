"""The images' bytes by content: `$REFIT_HOME/images/<first two digits>/<sha256>`.

A run reads images only from here, so moving, changing or deleting a file at its source never changes a run
that has seen it, and an S3 object is fetched once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline import files
from pipeline.errors import DataError
from pipeline.settings import refit_home

_FIX = "restore $REFIT_HOME/images from a backup, or ingest the source again in a new REFIT_HOME"


def path(image_id: str) -> Path:
    return refit_home() / "images" / image_id[:2] / image_id


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
        return path(image_id).read_bytes()
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
