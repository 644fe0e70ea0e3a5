"""What `data/duplicates` says, read without all that finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.dataset import duplicates, manifest

SCHEMA = pa.schema([("image_id", pa.string()), ("other", pa.string()), ("earlier", pa.bool_())])


@dataclass(frozen=True)
class Links:
    pairs: tuple[tuple[str, str], ...]  # image ids
    cluster: Mapping[str, str]  # image id to the least id of what its own batch connects it with; itself is left out


def read(folder: Path) -> Links:
    """All pairs of all batches. Empty if there are none."""
    table = manifest.concatenate(manifest.read_batches(folder), SCHEMA)
    pairs = tuple(zip(table["image_id"].to_pylist(), table["other"].to_pylist(), strict=True))
    own = [pair for pair, earlier in zip(pairs, table["earlier"].to_pylist(), strict=True) if not earlier]
    groups = duplicates.Groups()
    for one, other in own:
        groups.join(one, other)
    return Links(pairs, {image_id: groups.representative(image_id) for pair in own for image_id in pair})
