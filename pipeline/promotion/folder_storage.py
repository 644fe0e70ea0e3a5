"""Versions and moves in a folder, which may be a network file system.

A version is written beside its place and renamed; a move is written beside its place and linked to it, which fails
if the number is taken.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import ModelError, TransientError
from pipeline.promotion.storage import (
    CHECKSUMS,
    LIVE_FOLDER,
    REJECTED_FOLDER,
    differing,
    digests_of,
    make_read_only,
    name_of_move,
    name_of_rejection,
    require_undamaged,
)

_UNREACHABLE = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH}
_ABANDONED_AFTER = 24 * 3600  # seconds; nobody takes that long to copy a model


@dataclass(frozen=True)
class FolderStorage:
    """`root` is `<registry>/<model>`; `mounted` is a folder that must exist, else the registry is not reachable."""

    root: Path
    mounted: Path | None = None

    @property
    def base(self) -> str:
        return str(self.root)

    def uri(self, version: int) -> str:
        return str(self.root / str(version))

    def versions(self) -> list[int]:
        numbers = [int(name) for name in self._names(self.root) if name.isdigit()]
        return sorted(number for number in numbers if (self.root / str(number) / CHECKSUMS).exists())

    def read(self, version: int, name: str) -> bytes | None:
        with self._reachable():
            try:
                return (self.root / str(version) / name).read_bytes()
            except FileNotFoundError:
                return None

    def digests(self, version: int) -> dict[str, str]:
        with self._reachable():
            return digests_of(self.root / str(version))

    def publish(self, content: Mapping[str, Path], checksums: Mapping[str, str]) -> int:
        with self._reachable():
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            staged = Path(tempfile.mkdtemp(prefix=files.TEMPORARY_PREFIX, dir=self.root))
            try:
                for name, source in content.items():
                    _copy(source, staged / name)
                if changed := differing(checksums, digests_of(staged)):
                    raise ModelError(
                        f"The copy in {self.root} differs from its source: {', '.join(changed)}.",
                        fix="check the disk, then promote again",
                    )
                files.write_json(staged / CHECKSUMS, dict(checksums))
                make_read_only(staged)
                return self._claim(staged)
            finally:
                shutil.rmtree(staged, ignore_errors=True)

    def local(self, version: int) -> Path:
        folder = self.root / str(version)
        expected = json.loads(self.read(version, CHECKSUMS) or b"{}")
        require_undamaged(version, expected, self.digests(version))
        return folder

    def generations(self) -> list[int]:
        names = (name.removesuffix(".json") for name in self._names(self.root / LIVE_FOLDER))
        return sorted(int(name) for name in names if name.isdigit())

    def move(self, generation: int) -> dict[str, Any]:
        with self._reachable():
            content: dict[str, Any] = files.read_json(self.root / LIVE_FOLDER / name_of_move(generation))
            return content

    def add_move(self, move: Mapping[str, Any]) -> bool:
        target = self.root / LIVE_FOLDER / name_of_move(move["generation"])
        with self._reachable():
            target.parent.mkdir(exist_ok=True)
            staged = target.with_name(f"{files.TEMPORARY_PREFIX}{move['id']}.json")
            try:
                files.write_json(staged, move)
                self._link(staged, target)
                _flush(target.parent)
            except FileExistsError:
                # NFS repeats a request whose answer was lost, and then finds its own link.
                return self.move(move["generation"]) == move
            finally:
                staged.unlink(missing_ok=True)
        return True

    def _link(self, staged: Path, target: Path) -> None:
        try:
            os.link(staged, target)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.ENOTSUP}:
                raise
            raise ModelError(
                f"Expected a file system with hard links at {self.root}, found one without ({error.strerror}).",
                fix="set registry.location to a folder on another, or to s3://…",
            ) from error

    def rejections(self) -> list[dict[str, Any]]:
        folder = self.root / REJECTED_FOLDER
        names = [name for name in sorted(self._names(folder)) if not name.startswith(".")]
        with self._reachable():
            return [files.read_json(folder / name) for name in names]

    def add_rejection(self, rejection: Mapping[str, Any]) -> None:
        with self._reachable():
            files.write_json(self.root / REJECTED_FOLDER / name_of_rejection(rejection), rejection)

    def _claim(self, staged: Path) -> int:
        taken = [int(name) for name in self._names(self.root) if name.isdigit()]
        moved = [self.move(generation)["version"] for generation in self.generations()]  # also to what is gone now
        version = max([*taken, *moved], default=0)
        while True:
            version += 1
            try:
                staged.rename(self.root / str(version))  # fails on a folder that has content: versions never change
                _flush(self.root)
                return version
            except OSError as error:
                if error.errno == errno.ENOENT and (self.root / str(version)).is_dir() and not staged.exists():
                    return version  # NFS repeats a request whose answer was lost, and then finds the old name gone
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise

    def _sweep(self) -> None:
        """Remove what killed processes have left, once no living one can still be at work on it."""
        files.clear_temporaries(self.root, before=time.time() - _ABANDONED_AFTER)

    def _names(self, folder: Path) -> list[str]:
        """Not `glob`, which takes a folder that may not be read for an empty one."""
        with self._reachable():
            try:
                return os.listdir(folder)  # noqa: PTH208 - names are all that is wanted
            except FileNotFoundError:
                return []

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        if self.mounted is not None and not self.mounted.is_dir():
            raise TransientError(
                f"registry.location: expected a folder at {self.mounted}, found none.",
                fix="mount it; make it with mkdir if this registry is to begin there",
            )
        try:
            yield
        except OSError as error:
            if error.errno not in _UNREACHABLE:
                raise
            raise TransientError(
                f"The registry at {self.root} does not answer ({error.strerror}).", fix="check its disk, then run again"
            ) from error


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    _flush(target)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
