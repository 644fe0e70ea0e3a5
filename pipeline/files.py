"""Atomic writes: a reader sees the old file, the new file, or none, never a half-written one.

Temporary names start with `.tmp-`, which .dvcignore hides, so what a killed process leaves behind is never
taken for an output.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TEMPORARY_PREFIX = ".tmp-"


def is_hidden(name: str) -> bool:
    """Whether tools mark what is so named as unfinished or no content. `.` and `..` are S3 keys' own business."""
    return name.startswith(".") and name not in {".", ".."}


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success flush it to disk and rename it over `target`.

    On failure the temporary file is removed and `target` is as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=target.suffix, dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_directory(target: Path, *, one_content: bool = False) -> Iterator[Path]:
    """Yield an empty temporary directory beside `target`; on success it takes `target`'s place.

    `one_content`: what has that name always holds the same. Processes that make it at once then leave alone what the
    first has made, which others may read by now.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if target.exists() and not one_content:
            shutil.rmtree(target)
        try:
            temporary.rename(target)
        except OSError as error:
            if not one_content or error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            shutil.rmtree(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_bytes(target: Path, content: bytes) -> None:
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, text: str) -> None:
    write_bytes(target, text.encode())


def write_json(target: Path, value: Any) -> None:
    """Sorted keys and a final newline, so that equal values are equal bytes. NaN is refused (not JSON)."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(source: Path) -> Any:
    return json.loads(source.read_text())


def write_table(target: Path, table: pa.Table) -> None:
    with replacing(target) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def clear_temporaries(folder: Path, *, before: float | None = None) -> None:
    """Remove what killed writers left in `folder` (this level only) and, if others may write there, nobody has touched
    since `before` (Unix time). What cannot be removed does no harm."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):  # its writer lives and has just renamed it, say
            if before is not None and leftover.lstat().st_mtime >= before:
                continue
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink()


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_tree(folder: Path) -> str:
    """Hex digest over the sorted relative names and contents of all files below `folder`, Python's caches excepted."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()
