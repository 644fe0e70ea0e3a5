"""What frozen networks give, kept on disk: computed once, then shared by folds, phases and runs.

A shelf holds one kind of output: rows [...] of one shape and dtype by name, for one key (which network, with which
weights, fed with what). It is a folder of parts that are written once, atomically, and memory-mapped:

    <sha256 of the key>/key.json, <random>/names.txt, <random>/rows.npy

Processes may write to one shelf at once; a row that both have computed is then there twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import files

logger = logging.getLogger(__name__)

DENSE_BYTES = 1 << 30
_CHUNK = 4096  # rows
_KEY, _NAMES, _ROWS = "key.json", "names.txt", "rows.npy"


class Cache:
    """The shelves below `folder`, at most `limit` bytes of them; in memory, and gone with the process, if that is 0."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def shelf(self, key: Mapping[str, Any]) -> Shelf:
        if not self.limit:
            return Shelf(None)
        text = json.dumps(key, sort_keys=True)
        place = self.folder / hashlib.sha256(text.encode()).hexdigest()
        place.mkdir(parents=True, exist_ok=True)
        if not (place / _KEY).exists():
            files.write_text(place / _KEY, text + "\n")
        os.utime(place)  # `trim` goes by it
        return Shelf(place)

    def trim(self) -> None:
        """Remove the shelves that were not used for longest until the rest is within the limit.

        A process that has a shelf open keeps what it has mapped.
        """
        if not self.folder.is_dir():
            return
        shelves = []
        for place in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another training adds to it, or trims, too
                size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
                if place.is_dir():
                    shelves.append((place.stat().st_mtime, size, place))
        excess = sum(size for _, size, _ in shelves) - self.limit
        for _, size, place in sorted(shelves):
            if excess <= 0:
                return
            logger.info("removing %.1f GB of frozen features that were not used for longest", size / 1e9)
            shutil.rmtree(place, ignore_errors=True)
            excess -= size


class Shelf:
    """`parts`: arrays [n, ...]. `places`: name to part and row. In memory if `folder` is None."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.parts: list[NDArray[Any]] = []
        self.places: dict[str, tuple[int, int]] = {}
        for part in sorted(folder.iterdir()) if folder is not None else ():
            if part.is_dir() and not part.name.startswith(files.TEMPORARY_PREFIX):
                self._open(part)

    def missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self.places]

    def add(self, names: Sequence[str], rows: NDArray[Any]) -> None:
        """Keep `rows` [n, ...] under their names. Atomic."""
        if self.folder is None:
            self._append(names, rows)
            return
        part = self.folder / uuid.uuid4().hex
        with files.replacing_directory(part) as temporary:
            with (temporary / _ROWS).open("wb") as stream:
                np.save(stream, rows, allow_pickle=False)
                stream.flush()
                os.fsync(stream.fileno())
            files.write_text(temporary / _NAMES, "\n".join(names))
        self._open(part)

    def _open(self, part: Path) -> None:
        try:
            names = (part / _NAMES).read_text().splitlines()
            rows = np.load(part / _ROWS, mmap_mode="r", allow_pickle=False)
            if len(rows) != len(names):
                raise ValueError(f"{len(rows)} rows of {len(names)} names")
        except (OSError, ValueError) as error:
            logger.warning("frozen features in %s are damaged (%s): they are computed again", part, error)
            shutil.rmtree(part, ignore_errors=True)
            return
        self._append(names, rows)

    def _append(self, names: Sequence[str], rows: NDArray[Any]) -> None:
        self.places |= {name: (len(self.parts), row) for row, name in enumerate(names)}
        self.parts.append(rows)


class Stored:
    """Rows [V, N, ...] that lie on V shelves, each of which holds the N names.

    Up to `DENSE_BYTES` are copied into memory at once, as they are taken several thousand times; of more nothing is
    copied until it is taken.
    """

    def __init__(self, shelves: Sequence[Shelf], names: Sequence[str]) -> None:
        self._parts = [shelf.parts for shelf in shelves]
        self._places = np.array([[shelf.places[name] for name in names] for shelf in shelves], np.int64)
        first = self._parts[0][0]
        self.shape = (len(shelves), len(names), *first.shape[1:])
        self._dense: NDArray[Any] | None = None
        if math.prod(self.shape) * first.itemsize <= DENSE_BYTES:
            self._dense = np.empty(self.shape, first.dtype)
            for view, rows in enumerate(self._dense):
                self._copy(rows, np.full(len(names), view), np.arange(len(names)))

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, views: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Float32 [n, ...]: of each of n pairs of view and row."""
        if self._dense is not None:
            return self._dense[views, rows].astype(np.float32, copy=False)
        taken = np.empty((len(views), *self.shape[2:]), np.float32)
        self._copy(taken, views, rows)
        return taken

    def _copy(self, taken: NDArray[Any], views: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        places = self._places[views, rows]
        for view, part in set(zip(views.tolist(), places[:, 0].tolist(), strict=True)):
            here = (views == view) & (places[:, 0] == part)
            taken[here] = self._parts[view][part][places[here, 1]]

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of each feature over all views and rows of [V, N, C], float64 [C]."""
        total = mean = squares = np.float64(0)
        for view in range(len(self)):
            for start in range(0, self.shape[1], _CHUNK):
                rows = np.arange(start, min(start + _CHUNK, self.shape[1]))
                found = self.take(np.full(len(rows), view), rows).astype(np.float64)
                # Chan et al. 1983: sums of squares about the mean, put together piece by piece.
                apart, share = found.mean(axis=0) - mean, len(rows) / (total + len(rows))
                squares = squares + found.var(axis=0) * len(rows) + apart**2 * total * share
                mean, total = mean + apart * share, total + len(rows)
        return np.asarray(mean), np.asarray(squares / total)

    def view(self, view: int) -> NDArray[np.float32]:
        """Float32 [N, ...]."""
        count = self.shape[1]
        return self.take(np.full(count, view), np.arange(count))
