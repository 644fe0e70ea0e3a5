"""What keeps the versions of one model and the moves of its live pointer: a folder, or a prefix of a bucket.

Everything in it is written once. A version is there for readers when all of its files are, and never before; a move
has a number, which exactly one of those who want it gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pipeline import files
from pipeline.errors import ModelError

CHECKSUMS = "checksums.json"  # of a version: name of each file to the sha256 of its bytes
LIVE_FOLDER = "live"
REJECTED_FOLDER = "rejected"


class Storage(Protocol):
    """Whatever does not answer raises `TransientError`, so that it never looks empty."""

    @property
    def base(self) -> str:
        """The place in words: a path or s3://bucket/prefix."""
        ...

    def uri(self, version: int) -> str:
        """Where a version lies."""
        ...

    def versions(self) -> list[int]:
        """Published versions, ascending."""
        ...

    def read(self, version: int, name: str) -> bytes | None:
        """A small file of a version; None if it has none of this name."""
        ...

    def digests(self, version: int) -> dict[str, str]:
        """Name to sha256 of all files of a version but its checksums, from their bytes as they are now."""
        ...

    def publish(self, content: Mapping[str, Path], checksums: Mapping[str, str]) -> int:
        """Store files under a new number, see that they are as `checksums` says, and only then let them be seen.

        Repeating what was cut off is safe. Raises `ModelError` if what is stored differs.
        """
        ...

    def local(self, version: int) -> Path:
        """A folder on this machine with the version's content, verified. Raises `ModelError` if it is damaged."""
        ...

    def generations(self) -> list[int]:
        """Numbers of all moves, ascending."""
        ...

    def move(self, generation: int) -> dict[str, Any]: ...

    def add_move(self, move: Mapping[str, Any]) -> bool:
        """Record a move under its `generation`; False if that has been taken by another."""
        ...

    def rejections(self) -> list[dict[str, Any]]:
        """Answers of people who did not let a run's model go live, oldest first. They are no moves."""
        ...

    def add_rejection(self, rejection: Mapping[str, Any]) -> None:
        """Record an answer; the same one again changes nothing."""
        ...


def name_of_move(generation: int) -> str:
    return f"{generation:08d}.json"


def name_of_rejection(rejection: Mapping[str, Any]) -> str:
    """In the order of time, and one for each answer: a run may be asked about again."""
    return f"{''.join(letter for letter in rejection['at'] if letter.isalnum())}-{rejection['run']}.json"


def digests_of(folder: Path) -> dict[str, str]:
    """Name to sha256 of all files below a version's folder but its checksums."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in found}


def differing(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Names of the files that are missing, added or of other content."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def require_undamaged(version: int, expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raises `ModelError` if the files of a version are not as published."""
    if changed := differing(expected, found):
        raise damaged(version, changed)


def damaged(version: int, names: Iterable[str]) -> ModelError:
    return ModelError(
        f"Version {version} is damaged: {', '.join(names)}.",
        fix="restore it from a backup, or go back to another with `refit rollback`",
    )


def make_read_only(folder: Path) -> None:
    """Of files alone: a folder that nobody may change could not be removed by its owner either."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    folder.chmod(0o755)
