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
        raise DataError(
            f"Expected an image in the image store, {path(image_id)} is missing.",
            fix="restore $REFIT_HOME/images from a backup, or ingest the source again in a new REFIT_HOME",
        ) from None
