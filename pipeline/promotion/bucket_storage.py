"""Versions and moves below a prefix of a bucket (docs/adr/0023).

Nothing can be renamed there, so `checksums.json` comes last, on the condition that there is none, and a version without
it is not there. A version's number and a move's number are taken by writing an object on that same condition
(`If-None-Match: *`): of all who ask for it, the store lets one in.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.backbones.bucket_weights import FILES, LIMIT
from pipeline.buckets.bucket import Bucket, Object
from pipeline.buckets.objects import Objects
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

_CLAIMS = "claims"
_NOBODY = 0  # the version that is never given out; its claim shows whether the store keeps to conditions
_SERVED_FROM = "saved_model.pb"  # without it a folder is no SavedModel, so servers that poll the bucket let it be


@dataclass(frozen=True)
class BucketStorage:
    """`bucket.prefix` is `<prefix>/<model>/`; versions that are needed here are kept below `cache`."""

    bucket: Bucket
    cache: Path

    @property
    def base(self) -> str:
        return self.bucket.base.rstrip("/")

    def uri(self, version: int) -> str:
        return f"{self.base}/{version}"

    def versions(self) -> list[int]:
        parts = [name.split("/") for name in self._objects.names()]
        return sorted(int(part[0]) for part in parts if part[1:] == [CHECKSUMS] and part[0].isdigit())

    def read(self, version: int, name: str) -> bytes | None:
        return self._objects.read(f"{version}/{name}")

    def digests(self, version: int) -> dict[str, str]:
        return {name: hashlib.sha256(self._objects.content(item)).hexdigest() for name, item in self._items(version)}

    def publish(self, content: Mapping[str, Path], checksums: Mapping[str, str]) -> int:
        _check_size(self.base, len(content), sum(path.stat().st_size for path in content.values()))
        self._objects.check_conditions(_claim(_NOBODY))
        body = _as_json(checksums)
        version = self._claimed(body)
        for name in sorted(content, key=lambda name: (name == _SERVED_FROM, name)):
            with content[name].open("rb") as stream:
                self._objects.put(f"{version}/{name}", stream, bytes.fromhex(checksums[name]))
        if changed := differing(checksums, self.digests(version)):
            raise ModelError(
                f"What {self.uri(version)} gives back differs from what was sent: {', '.join(changed)}.",
                fix="promote again; if it stays so, look at the store and what is between",
            )
        if not self._objects.create(f"{version}/{CHECKSUMS}", body):
            raise ModelError(f"{self.uri(version)} holds another model's checksums.", fix="promote again")
        return version

    def local(self, version: int) -> Path:
        expected = json.loads(self.read(version, CHECKSUMS) or b"{}")
        target = self.cache / str(version)
        if target.is_dir() and digests_of(target) == expected:
            return target
        self.cache.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=files.TEMPORARY_PREFIX, dir=self.cache))
        old = staged.with_name(f"{staged.name}-old")
        try:
            self._download(version, staged, expected)
            try:
                staged.rename(target)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                if digests_of(target) != expected:  # damaged or of another registry; else another process was first
                    target.rename(old)
                    staged.rename(target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
        return target

    def generations(self) -> list[int]:
        names = self._objects.names(f"{LIVE_FOLDER}/")
        numbers = (name.removeprefix(f"{LIVE_FOLDER}/").removesuffix(".json") for name in names)
        return sorted(int(number) for number in numbers if number.isdigit())

    def move(self, generation: int) -> dict[str, Any]:
        body = self._objects.read(f"{LIVE_FOLDER}/{name_of_move(generation)}")
        if body is None:
            raise TransientError(f"{self.base}: move {generation} is gone after it was listed.", fix="run again")
        content: dict[str, Any] = json.loads(body)
        return content

    def add_move(self, move: Mapping[str, Any]) -> bool:
        self._objects.check_conditions(_claim(_NOBODY))
        return self._objects.create(f"{LIVE_FOLDER}/{name_of_move(move['generation'])}", _as_json(move))

    def rejections(self) -> list[dict[str, Any]]:
        names = sorted(self._objects.names(f"{REJECTED_FOLDER}/"))
        bodies = [self._objects.read(name) for name in names]
        return [json.loads(body) for body in bodies if body is not None]

    def add_rejection(self, rejection: Mapping[str, Any]) -> None:
        self._objects.create(f"{REJECTED_FOLDER}/{name_of_rejection(rejection)}", _as_json(rejection))

    def _claimed(self, body: bytes) -> int:
        """A number of our own. What was cut off while it sent the very same files had one, which we take over."""
        published = set(self.versions())
        names = self._objects.names(f"{_CLAIMS}/")
        claims = sorted(int(Path(name).stem) for name in names if Path(name).stem.isdigit())
        for version in claims:
            if version not in published and version != _NOBODY and self._objects.read(_claim(version)) == body:
                return version
        version = max([*claims, *published], default=0)
        while True:
            version += 1
            if self._objects.create(_claim(version), body):
                return version

    def _download(self, version: int, folder: Path, expected: Mapping[str, str]) -> None:
        items = self._items(version)
        _check_size(self.uri(version), len(items), sum(item.bytes for _, item in items))
        if unsafe := [name for name, _ in items if any(part in {"", ".", ".."} for part in name.split("/"))]:
            raise ModelError(
                f"{self.uri(version)} has a file that no folder can hold: {unsafe[0]!r}.", fix="choose another version"
            )
        for name, item in items:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._objects.content(item))
        require_undamaged(version, expected, digests_of(folder))
        files.write_json(folder / CHECKSUMS, dict(expected))
        make_read_only(folder)

    def _items(self, version: int) -> list[tuple[str, Object]]:
        below = f"{version}/"
        pairs = [(name.removeprefix(below), item) for name, item in self._objects.items(below)]
        return [(name, item) for name, item in pairs if name != CHECKSUMS]

    @property
    def _objects(self) -> Objects:
        return Objects(self.bucket, "registry.location", "promotions could overwrite each other")


def _claim(version: int) -> str:
    return f"{_CLAIMS}/{name_of_move(version)}"


def _as_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(value), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _check_size(place: str, count: int, size: int) -> None:
    if count > FILES or size > LIMIT:
        raise ModelError(
            f"Expected a model of at most {LIMIT >> 30} GiB in {FILES} files at {place}, got {size >> 20} MiB in "
            f"{count}.",
            fix="train a smaller backbone, or set registry.location to a folder",
        )
