"""What a folder of shards holds, and whether its files are still as they were written. Format: docs/formats.md."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.dataset import tfrecord
from pipeline.errors import DataError

VERSION = 2  # of index.json and of the bytes of the files: raise it when either changes
INDEX = "index.json"
READ_BYTES = 8 << 20


@dataclass(frozen=True)
class File:
    path: str  # relative to the folder of the index
    split: str
    batch: str
    augmented: bool  # holds augmented copies, and nothing else
    examples: int
    bytes: int
    crc32c: str  # of all bytes, 8 hexadecimal digits


@dataclass(frozen=True)
class Index:
    classes: tuple[str, ...]
    files: tuple[File, ...]
    digests: Mapping[str, str]  # part (batch, or batch-augmented) to the digest of what its files were made from

    @property
    def compression(self) -> str:
        """As `tf.data.TFRecordDataset` names it."""
        return "GZIP" if any(entry.path.endswith(".gz") for entry in self.files) else ""


def read_index(folder: Path) -> Index:
    """`index.json` as it is; without files if there is none, or one of another version, whose classes still hold."""
    if not (folder / INDEX).exists():
        return Index((), (), {})
    content = files.read_json(folder / INDEX)
    if content.get("version") != VERSION:
        return Index(tuple(content["classes"]), (), {})
    return Index(tuple(content["classes"]), tuple(File(**entry) for entry in content["files"]), content["digests"])


def load_index(folder: Path) -> Index:
    """The index, for readers, after every file that it lists has been read once.

    Raises `DataError` naming the first file that is missing, has another size or other bytes.
    """
    index = read_index(folder)
    with ThreadPoolExecutor() as threads:
        problems = threads.map(lambda entry: _damage(folder / entry.path, entry), index.files)
        for entry, problem in zip(index.files, problems, strict=True):
            if problem is not None:
                raise DataError(
                    f"Expected the shard {folder / entry.path} as it was written, found {problem}.",
                    fix="remove data/shards of this run and run its shard stage again",
                )
    return index


def size_of(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def _damage(path: Path, entry: File) -> str | None:
    """What is wrong with a file, in words."""
    size = size_of(path)
    if size is None:
        return "nothing"
    if size != entry.bytes:
        return f"{size} bytes instead of {entry.bytes}"
    with path.open("rb") as stream:
        found = f"{tfrecord.checksum(iter(lambda: stream.read(READ_BYTES), b'')):08x}"
    return None if found == entry.crc32c else f"the CRC-32C {found} instead of {entry.crc32c}"
