"""How often held-out images have served decisions already.

Each decision that is taken on the same images lets a little of them into what is kept: the best of k candidates of
equal worth looks better on n images by up to sqrt(ln(k) / (2 n)): the expected maximum of k normal variables whose
standard deviation is 1 / (2 sqrt(n)), an accuracy's at most. See Blum & Hardt, The Ladder, ICML 2015.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files

SCHEMA = pa.schema([("image_id", pa.string())])


@dataclass(frozen=True)
class Uses:
    median: float | None  # earlier decisions that an image of the test set has served; None without images
    images: int
    unused: int  # images that have served none


def count(folder: Path, run_id: str, test: Collection[str]) -> Uses:
    """From the files of other runs in `folder`."""
    earlier = [path for path in sorted(folder.glob("*.parquet")) if path.stem != run_id]
    served = Counter(image_id for path in earlier for image_id in pq.read_table(path)["image_id"].to_pylist())
    counts = [served[image_id] for image_id in test]
    return Uses(median(counts) if counts else None, len(counts), counts.count(0))


def record(folder: Path, run_id: str, test: Collection[str]) -> None:
    """That this run's decision was taken on these images; repeating it changes nothing."""
    files.write_table(folder / f"{run_id}.parquet", pa.table({"image_id": sorted(test)}, SCHEMA))
