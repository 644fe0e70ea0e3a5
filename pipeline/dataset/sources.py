"""Where labelled images come from: a directory or an S3 prefix, one folder per class.

The label of an image is the name of the folder that it lies in. Hidden files and folders (`.name`) are not
listed: that is how tools mark what is not finished or not content.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from pipeline.errors import DataError, RefitError, SettingsError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# Worth waiting for; everything else that S3 answers stays wrong when asked again.
_TRANSIENT_S3 = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "503", "500"}


@dataclass(frozen=True)
class Item:
    """One listed file. `version` changes when its content does; `label` is None right below the source."""

    uri: str
    key: str  # how the source finds it: a path, or an S3 key
    version: str
    label: str | None
    bytes: int
    regular: bool = True  # False for sockets, pipes and broken links


class Source(Protocol):
    """Picklable: worker processes read from it."""

    def list(self) -> Iterator[Item]:
        """All files. Raises `DataError` if the source does not exist, `TransientError` if it does not answer."""

    def read(self, item: Item) -> bytes:
        """The bytes of `item`. Raises `OSError` or `RefitError`."""


def open_source(uri: str | None) -> Source:
    """The source behind a path or an `s3://bucket/prefix`. Raises `SettingsError` for anything else."""
    if not uri:
        raise SettingsError(
            "ingest.source: expected a directory or s3://bucket/prefix, got nothing.", fix="refit run --source PLACE"
        )
    if uri.startswith("s3://"):
        parts = urlsplit(uri)
        prefix = parts.path.strip("/")
        return BucketSource(parts.netloc, f"{prefix}/" if prefix else "")
    if "://" in uri:
        raise SettingsError(
            f"ingest.source: expected a directory or s3://bucket/prefix, got {uri!r}.",
            fix="copy the images to one of these",
        )
    return DirectorySource(str(Path(uri).expanduser().absolute()))


@dataclass(frozen=True)
class DirectorySource:
    root: str

    def list(self) -> Iterator[Item]:
        if not os.path.isdir(self.root):
            raise DataError(
                f"Expected a directory of class folders at {self.root}, found {_what_is(self.root)}.",
                fix="give an existing directory to --source",
            )
        seen = set()  # links are followed, but no folder twice: they may lead in a circle
        for folder, subfolders, names in os.walk(self.root, onerror=_raise, followlinks=True):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            label = None if folder == self.root else _printable(os.path.basename(folder))
            for name in sorted(name for name in names if not name.startswith(".")):
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except OSError:  # a link to nowhere or to itself, or gone since it was listed
                    yield Item(_printable(path), path, "0-0", label, 0, regular=False)
                    continue
                version = f"{status.st_size}-{status.st_mtime_ns}"
                yield Item(_printable(path), path, version, label, status.st_size, stat.S_ISREG(status.st_mode))

    def read(self, item: Item) -> bytes:
        return Path(item.key).read_bytes()


@dataclass(frozen=True)
class BucketSource:
    """Endpoint, region, profile and credentials come from the standard AWS configuration."""

    bucket: str
    prefix: str

    @cached_property
    def _client(self) -> S3Client:
        import boto3
        from botocore.config import Config

        return boto3.client("s3", config=Config(retries={"mode": "adaptive", "max_attempts": 8}))

    def __getstate__(self) -> dict[str, str]:
        return {"bucket": self.bucket, "prefix": self.prefix}  # each process connects by itself

    def list(self) -> Iterator[Item]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            for page in pages:
                for entry in page.get("Contents", []):
                    path = PurePosixPath(entry["Key"][len(self.prefix) :])
                    if entry["Key"].endswith("/") or any(part.startswith(".") for part in path.parts):
                        continue
                    label = path.parent.name or None
                    uri = f"s3://{self.bucket}/{entry['Key']}"
                    yield Item(uri, entry["Key"], entry["ETag"].strip('"'), label, entry["Size"])
        except (BotoCoreError, ClientError) as error:
            raise _explain_s3(f"s3://{self.bucket}/{self.prefix}", error) from None

    def read(self, item: Item) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            # If-Match: bytes of another version than the listed one must not be recorded under its ETag.
            answer = self._client.get_object(Bucket=self.bucket, Key=item.key, IfMatch=item.version)
            return answer["Body"].read()
        except (BotoCoreError, ClientError) as error:
            raise _explain_s3(item.uri, error) from None


def _explain_s3(uri: str, error: Exception) -> RefitError:
    code = getattr(error, "response", {}).get("Error", {}).get("Code", type(error).__name__)
    if code in {"NoSuchBucket", "NoSuchKey", "404"}:
        return DataError(f"{uri} does not exist ({code}).", fix="check the bucket and the prefix of --source")
    if code in {"PreconditionFailed", "412"}:
        return TransientError(f"{uri} changed while it was being read.", fix="run again")
    if code in _TRANSIENT_S3 or not hasattr(error, "response"):
        return TransientError(
            f"{uri}: the store did not answer as it should ({error}).",
            fix="check AWS_ENDPOINT_URL, AWS_PROFILE and the network, then run again",
        )
    return DataError(
        f"{uri}: {error}.", fix="check the credentials and their permissions (s3:ListBucket, s3:GetObject)"
    )


def _what_is(path: str) -> str:
    return "a file" if Path(path).exists() else "nothing"


def _printable(path: str) -> str:
    """File names are bytes; those that are no UTF-8 are shown with escapes, since tables hold only text."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _raise(error: OSError) -> None:
    raise error
