"""A prefix of a bucket as a source: the folder of a key is its label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pipeline.buckets.bucket import Bucket, Object
from pipeline.sources.item import NO_FOLDER, Item, folder_label

_UNSAFE = ("unsafe-name", "a part of its key is empty, '.' or '..', which no folder can be called")


@dataclass(frozen=True)
class BucketSource:
    bucket: Bucket
    parallel_reads: ClassVar[int] = Bucket.parallel_reads

    @property
    def base(self) -> str:
        return self.bucket.base

    def list(self) -> Iterator[Item]:
        for found in self.bucket.list():
            names = found.key[len(self.bucket.prefix) :].split("/")
            unsafe = any(name in {"", ".", ".."} for name in names)
            label = None if unsafe else folder_label(names[:-1])
            problem = _UNSAFE if unsafe else NO_FOLDER if label is None else None
            yield Item(found.uri, found.key, found.etag, label, found.bytes, problem=problem)

    def find(self, name: str) -> Item | None:
        if (found := self.bucket.find(name)) is None:
            return None
        return Item(found.uri, found.key, found.etag, None, found.bytes)

    def read(self, item: Item) -> bytes:
        return self.bucket.read(Object(item.uri, item.key, item.version, item.bytes))
