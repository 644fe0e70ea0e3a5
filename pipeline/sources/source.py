"""Where labelled images come from: a directory or an S3 prefix.

A labels file decides the labels if there is one; else the label of an image is the name of the folder that it lies
in. Hidden files and folders (`.name`) are not listed: that is how tools mark what is not finished or not content.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from pipeline.errors import DataError, SettingsError
from pipeline.sources import labels as labels_file
from pipeline.sources.directory import DirectorySource
from pipeline.sources.item import NO_LABEL, Item
from pipeline.sources.labels import Row

__all__ = ["Item", "LabelledSource", "Source", "open_source"]


class Source(Protocol):
    """Picklable: worker processes read from it, each in up to `parallel_reads` threads."""

    @property
    def base(self) -> str:
        """What the uri of each item begins with, the slash before the path in the source included."""

    @property
    def parallel_reads(self) -> int: ...

    def list(self) -> Iterator[Item]:
        """All files. Raises `DataError` if the source does not exist, `TransientError` if it does not answer."""

    def read(self, item: Item) -> bytes:
        """The bytes of `item`, of the version that was listed. Raises `RefitError`, or `OSError` if this one item
        cannot be had while others may."""


class Files(Source, Protocol):
    """A source that labels by folder."""

    def find(self, name: str) -> Item | None:
        """The file of that path in the source."""


def open_source(uri: str | None, *, labels: str | None = None, verify_etag: bool = True) -> Source:
    """The source behind a path or an `s3://bucket/prefix`. `labels` is a labels file's path or `s3://` uri; None takes
    the one at the top of the source if there is one.

    Raises `SettingsError` for anything else.
    """
    if not uri:
        raise SettingsError(
            "ingest.source: expected a directory or s3://bucket/prefix, got nothing.", fix="refit run --source PLACE"
        )
    files = _open_files("ingest.source", uri, verify_etag)
    if labels is None:
        return LabelledSource(files)
    folder, name = os.path.split(labels)
    if Path(name).suffix.casefold() not in labels_file.FORMATS:
        raise SettingsError(
            f"ingest.labels: expected a file named .csv, .jsonl or .parquet, got {labels!r}.",
            fix="convert it to one of these",
        )
    return LabelledSource(files, _open_files("ingest.labels", folder or ".", verify_etag), name)


def _open_files(setting: str, uri: str, verify_etag: bool) -> Files:
    scheme, separator, place = uri.partition("://")
    if not separator:
        return DirectorySource(str(Path(uri).expanduser().absolute()))
    bucket, _, prefix = place.partition("/")
    if scheme != "s3" or not bucket:
        raise SettingsError(
            f"{setting}: expected a directory or s3://bucket/prefix, got {uri!r}.",
            fix="copy the files to one of these",
        )
    from pipeline.buckets.bucket import Bucket  # boto3 takes 0.3 s, which directories need not wait for
    from pipeline.sources.bucket import BucketSource

    prefix = prefix.strip("/")
    return BucketSource(Bucket(bucket, f"{prefix}/" if prefix else "", verify_etag))


@dataclass(frozen=True)
class LabelledSource:
    """`files` with the labels of a labels file, which alone decides when there is one.

    Files that it does not name and names without a file are listed too, with their problem, so that each is
    accounted for; only the labels file itself is not.
    """

    files: Files
    labels_folder: Files | None = None  # where ingest.labels lies
    labels_name: str = ""

    @property
    def base(self) -> str:
        return self.files.base

    @property
    def parallel_reads(self) -> int:
        return self.files.parallel_reads

    def read(self, item: Item) -> bytes:
        return self.files.read(item)

    def list(self) -> Iterator[Item]:
        listing = [*self.files.list()]
        file = self._labels_file(listing)
        if file is None:
            yield from listing
            return
        name, base = PurePosixPath(file.uri).name, self.base
        found = labels_file.read(name, self._read_labels(file), base)
        rows = found.rows
        paths = {item.uri: unicodedata.normalize("NFC", item.uri[len(base) :]) for item in listing}
        missing = rows.keys() - paths.values()
        if len(missing) == len(rows):
            raise DataError(
                f"{name} names {len(rows)} files, such as {next(iter(rows))!r}, and none of them is in {base}.",
                fix="write the paths relative to the source: class/image.jpg",
            )
        for item in listing:
            if item.uri != file.uri:
                path = paths[item.uri]
                labelled = _labelled(item, rows.get(path, ()), name)
                yield replace(labelled, attributes=found.attributes.get(path, ()))
        for path in sorted(missing):
            yield _labelled(_absent(base, path, name), rows[path], name)

    def _labels_file(self, listing: Sequence[Item]) -> Item | None:
        if self.labels_folder is not None:
            if (item := self.labels_folder.find(self.labels_name)) is None:
                raise DataError(
                    f"Expected a labels file at {self.labels_folder.base}{self.labels_name}, found nothing.",
                    fix="correct ingest.labels",
                )
            return item
        names = {f"labels{suffix}" for suffix in labels_file.FORMATS}
        candidates = [item for item in listing if re.fullmatch(r"labels(\.[^/]*)?", self._name(item))]
        found = [item for item in candidates if self._name(item) in names]
        if candidates and not found:
            raise DataError(
                f"Expected one of {', '.join(sorted(names))}, found {candidates[0].uri}.",
                fix="convert it, or call it something else if it holds no labels",
            )
        if len(found) > 1:
            raise DataError(
                f"Expected one labels file, found {' and '.join(item.uri for item in found)}.",
                fix="keep one, or name it in ingest.labels",
            )
        return found[0] if found else None

    def _name(self, item: Item) -> str:
        return item.uri[len(self.base) :].casefold()

    def _read_labels(self, file: Item) -> bytes:
        problem = file.problem[1] if file.problem and file.problem[0] == "not-a-file" else None
        if file.bytes > labels_file.MAX_BYTES:
            problem = f"{file.bytes} bytes, more than {labels_file.MAX_BYTES}"
        try:
            if problem is None:
                return (self.labels_folder or self.files).read(file)
        except OSError as error:
            problem = error.strerror or str(error)
        raise DataError(f"Labels file {file.uri} cannot be read: {problem}.", fix="correct it, or ingest.labels")


def _labelled(item: Item, rows: Collection[Row], name: str) -> Item:
    """Details name no lines: a row more above would make old problems look new."""
    label, group = next(iter(rows)) if len(rows) == 1 else (None, None)
    problem = item.problem if item.problem and item.problem[0] != NO_LABEL else None
    if not rows:
        problem = problem or (NO_LABEL, f"not in {name}")
    elif label is None:
        said = sorted(f"{row.label} (group {row.group})" if row.group else row.label for row in rows)
        problem = problem or ("label-conflict", f"{name} says both {' and '.join(said)}")
    return Item(item.uri, item.key, item.version, label, item.bytes, group, problem)


def _absent(base: str, path: str, name: str) -> Item:
    if {"", ".", ".."}.isdisjoint(path.split("/")):
        problem = ("missing-file", f"{name} names it; the source does not have it, or hides it by a leading dot")
    else:
        problem = ("unsafe-name", f"{name} names it; paths are relative to the source and stay in it")
    return Item(base + path, path, "0-0", None, 0, problem=problem)
