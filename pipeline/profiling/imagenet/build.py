"""Measure a folder of ImageNet images for `reference.json`.

`reference.save(build("imagenet", source="which images, in words"))` renews it; needed when `features.VERSION` rises.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa

from pipeline.dataset import images
from pipeline.errors import DataError
from pipeline.profiling import features
from pipeline.profiling.imagenet import reference


def build(folder: Path, *, source: str) -> reference.Reference:
    """The numbers of every file below `folder`. Raises `DataError` if one is no image or there is none."""
    rows = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        try:
            decoded = images.decode(content, sys.maxsize)
        except images.Unreadable as error:
            raise DataError(f"Expected an image in {path}, got {error}.", fix="remove the file") from None
        identity = {"image_id": path.name, "batch": "0001", "label": ""}
        rows.append(identity | features.measure(decoded, len(content)))
    if not rows:
        raise DataError(f"Expected ImageNet images below {folder}, found no file.", fix="name their folder")
    return reference.summarise(pa.Table.from_pylist(rows, schema=features.SCHEMA), source=source)
