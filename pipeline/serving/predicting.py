"""Image files to the classes that a published model gives them, read as training has read its images.

A file goes through what ingest and shard do to it: the same limits, the same decoding of turned, CMYK, 16-bit and
transparent images, the same scaling down (`shard.max_side`). What comes out is what the SavedModel's signature
`encoded` takes, which resizes as training does.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset import encoding, images, inspection
from pipeline.errors import ModelError
from pipeline.ingestion import reasons
from pipeline.ingestion.answers import Limits
from pipeline.settings import Settings
from pipeline.sources.directory import DirectorySource
from pipeline.sources.item import NO_LABEL, Item

_MISSING = "missing-file"
AT_ONCE = 16  # images in memory, encoded, and in one call of the model

Answering = Callable[[Sequence[bytes]], NDArray[np.float32]]  # image files to probabilities [N, classes]


@dataclass(frozen=True)
class Reading:
    """How the images of a model's training were read: of its own params."""

    limits: Limits
    max_side: int | None
    quality: int


@dataclass(frozen=True)
class Answer:
    """`probabilities` float32 [classes], or the `reason` (a short code) and `detail` why there are none."""

    name: str
    probabilities: NDArray[np.float32] | None = None
    reason: str | None = None
    detail: str | None = None

    @property
    def cure(self) -> str | None:
        if self.reason == _MISSING:  # at ingest, a labels file names it
            return "check the path"
        return reasons.CURES.get(self.reason) if self.reason else None


def reading(params: Mapping[str, Any], shipped: Settings) -> Reading:
    """From a version's params.yaml; `shipped` has what an older one lacks."""
    ingest, shard = params.get("ingest") or {}, params.get("shard") or {}
    limits = {name: ingest.get(name, getattr(shipped.ingest, name)) for name in ("max_bytes", "max_pixels", "min_side")}
    quality = shard.get("quality", shipped.shard.quality)
    return Reading(Limits(**limits), shard.get("max_side", shipped.shard.max_side), quality)


def load(folder: Path) -> tuple[Answering, tuple[str, ...]]:
    """A SavedModel's signature `encoded`, and its classes. Raises `ModelError` if it cannot be read."""
    import tensorflow as tf

    try:
        model = tf.saved_model.load(str(folder))
        encoded = model.signatures["encoded"]
        names = tuple(name.decode() for name in model.signatures["classes"]()["classes"].numpy())
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        detail = " ".join(str(error).split())
        raise ModelError(
            f"{folder} is no SavedModel with the signatures encoded and classes: {detail:.300}",
            fix="choose another version (refit models), or promote one that this Refit has trained",
        ) from error

    def answer(contents: Sequence[bytes]) -> NDArray[np.float32]:
        _ = model  # which holds the variables
        probabilities: NDArray[np.float32] = encoded(encoded=tf.constant(list(contents)))["probabilities"].numpy()
        return probabilities

    return answer, names


def found(paths: Iterable[Path]) -> Iterator[tuple[DirectorySource, Item] | Answer]:
    """The files that are named, and all files below the folders that are, hidden ones excepted."""
    for path in paths:
        if path.is_dir():
            source = DirectorySource(str(path))
            yield from ((source, item) for item in source.list())
            continue
        source = DirectorySource(str(path.parent))
        item = source.find(path.name)
        yield (Answer(str(path), reason=_MISSING, detail="there is no such file") if item is None else (source, item))


def predict(paths: Iterable[Path], answer: Answering, how: Reading) -> Iterator[Answer]:
    """An answer for each file, in order. `AT_ONCE` files are in memory at a time."""
    entries = found(paths)
    while chunk := list(itertools.islice(entries, AT_ONCE)):
        read = [entry if isinstance(entry, Answer) else _read(*entry, how) for entry in chunk]
        contents = [content for content in read if isinstance(content, bytes)]
        rows = iter(answer(contents) if contents else ())
        for entry, content in zip(chunk, read, strict=True):
            if isinstance(content, Answer):
                yield content
            elif not isinstance(entry, Answer):
                yield Answer(entry[1].uri, next(rows))


def _read(source: DirectorySource, item: Item, how: Reading) -> bytes | Answer:
    """The bytes as they would lie in a shard, or why they would not."""
    if item.problem is not None and item.problem[0] != NO_LABEL:
        return Answer(item.uri, reason=item.problem[0], detail=item.problem[1])
    if item.bytes > how.limits.max_bytes:
        detail = f"{item.bytes} bytes, more than {how.limits.max_bytes}"
        return Answer(item.uri, reason=reasons.TOO_MANY_BYTES, detail=detail)
    try:
        data = source.read(item)
        notes = inspection.inspect(data, item.uri, max_pixels=how.limits.max_pixels, min_side=how.limits.min_side)
        return encoding.encode(data, notes, max_side=how.max_side, quality=how.quality).data
    except images.Unreadable as error:
        return Answer(item.uri, reason=error.reason, detail=error.detail)
    except OSError as error:
        return Answer(item.uri, reason=reasons.UNREADABLE_FILE, detail=error.strerror or os.strerror(error.errno or 0))
