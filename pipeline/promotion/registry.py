"""The model registry: immutable versions and a live pointer that moves by compare-and-swap.

Layout: docs/formats.md. The pointer is a row of numbered files, one a move; the highest number is live. A move
creates the next number with `os.link`, which fails if that number exists, so of two racing moves exactly one
wins, the other is told, and the row is at the same time the audit log.
"""

from __future__ import annotations

import errno
import getpass
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import ModelError, PromotionRefused

MODEL = "model.keras"
CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Live:
    """The live model, or none (`version` is None) when nothing has been promoted yet (`generation` 0)."""

    version: int | None
    generation: int
    path: str | None
    digest: str | None  # sha256 of model.keras

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Registry:
    """Versions of one model. `root` is `<registry>/<model>`."""

    root: Path

    def versions(self) -> list[int]:
        """Published versions, ascending."""
        return sorted(int(path.name) for path in self.root.glob("[0-9]*") if path.name.isdigit())

    def path(self, version: int) -> Path:
        return self.root / str(version)

    def history(self) -> list[dict[str, Any]]:
        """All moves of the live pointer, oldest first."""
        return [files.read_json(path) for path in sorted((self.root / "live").glob("[0-9]*.json"))]

    def live(self) -> Live:
        moves = self.history()
        if not moves:
            return Live(None, 0, None, None)
        last = moves[-1]
        return Live(last["version"], last["generation"], str(self.path(last["version"])), last["digest"])

    def publish(self, content: Mapping[str, Path]) -> int:
        """Copy files and folders into a new version and verify the copy. Returns its number.

        `content` maps the name in the version to the source. A version with the same model already in it is
        returned as it is, so that a promotion that was killed half-way can be repeated.
        Raises `ModelError` if the copy differs from its source.
        """
        digest = files.sha256(content[MODEL])
        for version in self.versions():
            if files.read_json(self.path(version) / CHECKSUMS)[MODEL] == digest:
                return version
        self.root.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=files.TEMPORARY_PREFIX, dir=self.root))
        try:
            for name, source in content.items():
                if source.is_dir():
                    shutil.copytree(source, staged / name, dirs_exist_ok=True)
                else:
                    shutil.copyfile(source, staged / name)
            checksums = _checksums(staged)
            if checksums[MODEL] != digest:
                raise ModelError(
                    f"The copy of {content[MODEL]} differs from it.", fix="check the disk, then promote again"
                )
            files.write_json(staged / CHECKSUMS, checksums)
            staged.chmod(0o755)
            return self._claim(staged)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _claim(self, staged: Path) -> int:
        version = max(self.versions(), default=0)
        while True:
            version += 1
            try:
                staged.rename(self.path(version))  # fails on a folder that has content: versions never change
                return version
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise

    def verify(self, version: int) -> None:
        """Raises `ModelError` if the version is missing or a file of it is not as published."""
        path = self.path(version)
        if not (path / CHECKSUMS).exists():
            known = ", ".join(map(str, self.versions())) or "none"
            raise ModelError(
                f"Version {version} is not in {self.root}; there are: {known}.", fix="refit models lists them"
            )
        if (found := _checksums(path)) != (expected := files.read_json(path / CHECKSUMS)):
            changed = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            raise ModelError(
                f"Version {version} is damaged: {', '.join(changed)}.",
                fix="choose another version, or restore it from a backup",
            )

    def move_live(self, version: int, *, expected_generation: int, reason: str) -> Live:
        """Make `version` live if the pointer still stands at `expected_generation`.

        Raises `PromotionRefused` if it has moved meanwhile, `ModelError` if the version is missing or damaged.
        """
        self.verify(version)
        before = self.live()
        move = {
            "generation": expected_generation + 1,
            "version": version,
            "previous": before.version,
            "digest": files.read_json(self.path(version) / CHECKSUMS)[MODEL],
            "reason": reason,
            "by": _user(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        target = self.root / "live" / f"{move['generation']:08d}.json"
        target.parent.mkdir(exist_ok=True)
        staged = target.parent / f"{files.TEMPORARY_PREFIX}{os.getpid()}-{version}.json"
        try:
            files.write_json(staged, move)
            if before.generation != expected_generation:
                raise FileExistsError
            os.link(staged, target)
        except FileExistsError:
            now = self.live()
            raise PromotionRefused(
                f"The live pointer has moved from generation {expected_generation} to {now.generation} "
                f"(version {now.version}) since the decision.",
                fix="run again: the candidate must be compared with the model that is live now",
            ) from None
        finally:
            staged.unlink(missing_ok=True)
        return self.live()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _checksums(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in found}
