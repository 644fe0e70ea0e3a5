"""The model registry: immutable versions and a live pointer that moves by compare-and-swap.

Layout: docs/formats.md. The pointer is a row of numbered moves; the highest number is live. Of two racing moves exactly
one gets the next number, the other is told who has it, and the row is at the same time the audit log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import ModelError, PromotionRefused, TransientError
from pipeline.promotion import audit
from pipeline.promotion.storage import CHECKSUMS, Storage, damaged, require_undamaged

MODEL = "model.keras"
CARD = "card.json"
# What is told of a model. All other files of a version are the model in one form or another.
RECORDS = frozenset({CARD, "card.md", "decision.json", "dvc.lock", "params.yaml", "training.parquet"})
_AT_ONCE = 8  # reads of moves, which mostly wait
LIVE, PREVIOUS, CANDIDATE = ALIASES = ("live", "previous", "candidate")


@dataclass(frozen=True)
class Live:
    """The live model, or none (`version` is None) when nothing has been promoted yet (`generation` 0)."""

    version: int | None
    generation: int
    path: str | None  # on this machine; None also where only the pointer was asked for
    digest: str | None  # sha256 of model.keras

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Registry:
    """Versions of one model. What does not answer raises `TransientError`; it never looks like "none yet"."""

    storage: Storage

    def versions(self) -> list[int]:
        """Published versions, ascending."""
        return self.storage.versions()

    def uri(self, version: int) -> str:
        return self.storage.uri(version)

    def card(self, version: int) -> dict[str, Any]:
        """card.json. Raises `ModelError` if the version is missing, has none or a damaged one."""
        return _object(version, CARD, self.text(version, CARD))

    def text(self, version: int, name: str) -> str:
        """A small file of a version. Raises `ModelError` if the version is missing, lacks it or has a damaged one."""
        self._checksums(version)
        found = self.storage.read(version, name)
        if found is None:
            raise ModelError(f"{self.uri(version)} has no {name}.", fix="choose another version")
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise damaged(version, [name]) from None

    def history(self) -> list[dict[str, Any]]:
        """All moves of the live pointer, oldest first."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self.storage.move, self.storage.generations()))

    def rejections(self) -> list[dict[str, Any]]:
        """Models that the gate let through and a person did not, oldest first."""
        return self.storage.rejections()

    def pointer(self) -> Live:
        """What is live, without looking at its files: a damaged model must not stand in the way of a rollback."""
        generations = self.storage.generations()
        if not generations:
            return Live(None, 0, None, None)
        last = self.storage.move(generations[-1])
        return Live(last["version"], last["generation"], None, last["digest"])

    def live(self) -> Live:
        """What is live, with its verified files on this machine. Raises `ModelError` if they are damaged."""
        found = self.pointer()
        if found.version is None:
            return found
        return Live(found.version, found.generation, str(self.fetch(found.version)), found.digest)

    def fetch(self, version: int) -> Path:
        """A local folder with the version's verified files. Raises `ModelError` if it is missing or damaged."""
        self._checksums(version)
        return self.storage.local(version)

    def aliases(self, moves: Sequence[audit.Move] | None = None) -> dict[str, int | None]:
        """Version of `live`, `previous` (where a rollback leads) and `candidate` (the newest that has never been live);
        None where there is none. `moves`: `history`, where it is at hand."""
        moves = self.history() if moves is None else moves
        stack = audit.standing(moves)
        been = {move["version"] for move in moves}
        return {
            LIVE: stack[-1] if stack else None,
            PREVIOUS: stack[-2] if len(stack) > 1 else None,
            CANDIDATE: max((version for version in self.versions() if version not in been), default=None),
        }

    def alias(self, name: str) -> int | None:
        """The version that one of `aliases` means. Raises `ModelError` for any other name."""
        if name not in ALIASES:
            raise ModelError(f"Expected an alias ({', '.join(ALIASES)}), got {name!r}.", fix="name one of these")
        return self.aliases()[name]

    def publish(self, content: Mapping[str, Path]) -> int:
        """Copy files and folders into a new version and verify the copy. Returns its number.

        `content` maps the name in the version to the source. A version with the same model already in it, in all of
        its forms, is returned as it is, so that a promotion that was killed half-way can be repeated.
        Raises `ModelError` if the copy differs from its source.
        """
        sources = _flat(content)
        checksums = {name: files.sha256(path) for name, path in sources.items()}
        model = _model_files(checksums)
        for version in reversed(self.versions()):
            if _model_files(self._checksums(version)) == model:
                return version
        return self.storage.publish(sources, checksums)

    def verify(self, version: int) -> None:
        """Raises `ModelError` if the version is missing or a file of it is not as published."""
        require_undamaged(version, self._checksums(version), self.storage.digests(version))

    def move_live(
        self,
        version: int,
        *,
        expected_generation: int,
        reason: str,
        kind: str = audit.PROMOTE,
        run: str | None = None,
        approval: Mapping[str, Any] | None = None,
    ) -> Live:
        """Make `version` live if the pointer still stands at `expected_generation`.

        Raises `PromotionRefused`, which names who has moved it meanwhile, and `ModelError` if the version is missing or
        damaged.
        """
        self.verify(version)
        before = self.pointer()
        move = audit.new_move(
            generation=expected_generation + 1,
            version=version,
            previous=before.version,
            digest=self._checksums(version)[MODEL],
            kind=kind,
            reason=reason,
            run=run,
            approval=approval,
        )
        if before.generation != expected_generation or not self.storage.add_move(move):
            raise self._moved(expected_generation)
        try:
            written = self.storage.move(move["generation"])
        except TransientError:  # it is written: who tried again would move the pointer once more
            written = move
        if written != move:
            raise ModelError(
                f"{self.storage.base} gives back another move {move['generation']} than was written.",
                fix="look at the store; `refit models` shows what is live",
            )
        return Live(version, move["generation"], None, move["digest"])

    def _moved(self, expected_generation: int) -> PromotionRefused:
        now = self.pointer()
        taken = expected_generation < now.generation
        winner = f"; {audit.told(self.storage.move(expected_generation + 1)).removesuffix('.')}" if taken else ""
        return PromotionRefused(
            f"The live pointer has moved from generation {expected_generation} to {now.generation} (version "
            f"{now.version}) since the decision{winner}.",
            fix="run again: the candidate must be compared with the model that is live now",
        )

    def _checksums(self, version: int) -> dict[str, str]:
        """Raises `ModelError` if they are damaged or the version is missing: without checksums it is not there."""
        found = self.storage.read(version, CHECKSUMS)
        if found is None:
            known = ", ".join(map(str, self.versions())) or "none"
            raise ModelError(
                f"Version {version} is not in {self.storage.base}; there are: {known}.", fix="refit models lists them"
            )
        return _object(version, CHECKSUMS, found)


def _flat(content: Mapping[str, Path]) -> dict[str, Path]:
    """Name of each file in the version to its source."""
    found: dict[str, Path] = {}
    for name, source in content.items():
        if source.is_dir():
            below = sorted(path for path in source.rglob("*") if path.is_file())
            found |= {f"{name}/{path.relative_to(source).as_posix()}": path for path in below}
        else:
            found[name] = source
    return found


def _model_files(checksums: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in checksums.items() if name not in RECORDS}


def _object(version: int, name: str, text: str | bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise damaged(version, [name])
    return content
