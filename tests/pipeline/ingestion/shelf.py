"""A source in memory that counts what is read from it, and a dataset that ingests it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import TransientError
from pipeline.ingestion import history, ingest, journal
from pipeline.ingestion.answers import Limits
from pipeline.ingestion.releases import Release
from pipeline.sources.source import Item, Source

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LIMITS = Limits(max_bytes=100_000, max_pixels=10_000, min_side=4)


@cache
def picture(seed: int, width: int = 12, height: int = 10) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class File:
    data: bytes
    version: str = "1"
    group: str | None = None
    problem: tuple[str, str] | None = None
    label: str | None = None  # else the folder


@dataclass
class Shelf:
    """`files` by "label/name"; one without a slash has no label."""

    files: dict[str, File | bytes]
    base: str = "shelf://"
    parallel_reads: int = 1
    fail_after: int | None = None  # reads
    reads: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def list(self) -> Iterator[Item]:
        for name, entry in self.files.items():
            found = entry if isinstance(entry, File) else File(entry)
            label = found.label or name.rpartition("/")[0] or None
            problem = found.problem or (None if label else ("no-label", "lies in no class folder"))
            yield Item(
                f"{self.base}{name}", name, found.version, label, len(found.data), group=found.group, problem=problem
            )

    def read(self, item: Item) -> bytes:
        with self.lock:
            if self.fail_after is not None and len(self.reads) >= self.fail_after:
                raise TransientError("The shelf fell.", fix="run again")
            self.reads.append(item.key)
        entry = self.files[item.key]
        return entry if isinstance(entry, bytes) else entry.data


class Dataset:
    """The stage without its settings: what components/ingest.py does, in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.manifest, self.quarantine = root / "manifest", root / "quarantine"
        self.limits = LIMITS
        self.releases: list[Release] = []
        self.max_removed_share = 1.0

    @property
    def history(self) -> history.History:
        return history.read(self.manifest, self.quarantine)

    def arrive(self, source: Source, processes: int = 1) -> ingest.Batch:
        ingest.clear_uncommitted(self.manifest, self.quarantine)
        batch = ingest.ingest(
            source,
            self.history,
            released=self.releases,
            limits=self.limits,
            max_removed_share=self.max_removed_share,
            processes=processes,
            now=NOW,
        )
        ingest.write(batch, self.manifest, self.quarantine)
        journal.replace(journal.path(source.base), batch.touched, self.limits)
        return batch

    @property
    def labels(self) -> dict[str, str]:
        """File name to label, of the images in force."""
        return {_name(row["uri"]): row["label"] for row in self.history.in_force.to_pylist()}

    @property
    def waiting(self) -> dict[str, str]:
        """File name to reason, of everything in quarantine."""
        return {_name(row["uri"]): row["reason"] for row in self.history.waiting.to_pylist()}

    @property
    def summary(self) -> dict[str, Any]:
        return ingest.summary(self.history)

    def content(self) -> dict[str, bytes]:
        """All files of the dataset."""
        return {
            path.relative_to(folder.parent).as_posix(): path.read_bytes()
            for folder in (self.manifest, self.quarantine)
            for path in folder.iterdir()
        }


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]
