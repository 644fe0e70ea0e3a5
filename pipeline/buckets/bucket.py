"""A prefix of an S3 bucket, in any store that speaks S3.

Endpoint, region, profile and credentials come from the standard AWS configuration (AWS_ENDPOINT_URL, AWS_PROFILE, …).
boto3 asks again when a store does not answer, says SlowDown or breaks off a listing, but not once an object's bytes
have begun to come: what is broken there (cut off, cut short, altered) is found and asked for again here.
"""

from __future__ import annotations

import errno
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - not the built-in one
    HTTPClientError,
)
from urllib3.exceptions import HTTPError

from pipeline.errors import DataError, RefitError, SettingsError, TransientError
from pipeline.files import is_hidden

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef, ObjectTypeDef

T = TypeVar("T")

_MD5 = re.compile("[0-9a-fA-F]{32}")
_GONE = {"NoSuchKey", "404", "PreconditionFailed", "412"}
_REFUSED = {"AccessDenied", "AllAccessDisabled", "InvalidObjectState"}  # for one object; the others may be fine
_BUSY = {"SlowDown", "RequestTimeout", "Throttling", "RequestLimitExceeded", "TooManyRequests"}
_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"}

# Workers get a copy of the bucket with each chunk of images; connecting anew for each would cost 0.1 s a time.
_clients: dict[Bucket, S3Client] = {}
_connecting = threading.Lock()


class _GarbledError(Exception):
    """The store said 200 and sent something else than what was asked for."""

    def __init__(self, problem: str, fix: str = "run again; if it stays so, look at the store and what is between"):
        super().__init__(problem)
        self.problem, self.fix = problem, fix


@dataclass(frozen=True)
class Object:
    """One listed object. `etag` changes when its content does."""

    uri: str
    key: str
    etag: str
    bytes: int


@dataclass(frozen=True)
class Bucket:
    name: str
    prefix: str  # empty, or ends in "/"
    verify_etag: bool = True  # where the ETag is an MD5 digest, it must be that of the bytes
    attempts: int = 8
    connect_timeout: float = 10  # seconds
    read_timeout: float = 60  # seconds without a byte
    part_bytes: int = 8 * 1024 * 1024  # of one request: what a cut connection costs at most
    identity: str = field(default_factory=lambda: uuid4().hex, repr=False)  # copies share a client
    parallel_reads: ClassVar[int] = 8  # most of a small read is waiting for its first byte

    @property
    def base(self) -> str:
        return f"s3://{self.name}/{self.prefix}"

    def list(self, below: str = "") -> Iterator[Object]:
        """What lies below `base`, or only what is named `below` and onwards there; nothing hidden."""
        token = ""
        while True:
            page = self._retried(self.base, partial(self._page, self.prefix + below, token))
            for entry in page.get("Contents", []):
                names = entry["Key"][len(self.prefix) :].split("/")
                folder = not names[-1] and not entry["Size"]  # what S3 consoles make of "new folder"
                if not folder and not any(map(is_hidden, names)):
                    yield self._object(entry)
            if not page["IsTruncated"]:
                return
            token = page["NextContinuationToken"]

    def find(self, name: str) -> Object | None:
        key = self.prefix + name  # sorts before all keys that it begins
        page = self._retried(f"{self.base}{name}", partial(self._page, key, ""))
        return next((self._object(entry) for entry in page.get("Contents", [])[:1] if entry["Key"] == key), None)

    def read(self, found: Object) -> bytes:
        """Large objects come in parts. Raises `PermissionError` if the store keeps this one object to itself."""
        return self._retried(found.uri, partial(self._download, found))

    def get(self, name: str) -> bytes | None:
        """A small object as it is now, in one request; None if there is none. Raises `PermissionError` as `read` does.

        Nothing says which bytes are expected, so who asks verifies them.
        """
        return self._retried(f"{self.base}{name}", partial(self._whole, name))

    def _object(self, entry: ObjectTypeDef) -> Object:
        return Object(f"s3://{self.name}/{entry['Key']}", entry["Key"], entry["ETag"].strip('"'), entry["Size"])

    def _page(self, prefix: str, token: str) -> ListObjectsV2OutputTypeDef:
        following: dict[str, Any] = {"ContinuationToken": token} if token else {}
        try:
            page = self.client().list_objects_v2(Bucket=self.name, Prefix=prefix, **following)
        except (BotoCoreError, ClientError) as error:
            raise explain(self.base, error) from None
        # Taken for an empty or finished listing, it would have every image that is not in it recorded as deleted.
        if "IsTruncated" not in page or (page["IsTruncated"] and page.get("NextContinuationToken", token) == token):
            raise _GarbledError("sent a listing without its end or its next page")
        return page

    def _download(self, found: Object) -> bytes:
        starts = range(0, max(found.bytes, 1), self.part_bytes)
        parts = [self._retried(found.uri, partial(self._part, found, start)) for start in starts]
        data = b"".join(body for body, _ in parts)
        if all(is_md5 for _, is_md5 in parts):
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if digest != found.etag.lower():
                raise _GarbledError(
                    f"sent bytes whose MD5 digest is {digest}, not its ETag {found.etag}",
                    "run again; if this store's ETags are no MD5 digests, set ingest.verify_etag=false",
                )
        return data

    def _part(self, found: Object, start: int) -> tuple[bytes, bool]:
        """`part_bytes` from `start` of the listed version, and whether the ETag is the MD5 digest of the whole."""
        size = min(found.bytes - start, self.part_bytes)
        some: dict[str, Any] = {} if size == found.bytes else {"Range": f"bytes={start}-{start + size - 1}"}
        try:
            # If-Match: bytes of another version than the listed one must not be recorded under its ETag.
            answer = self.client().get_object(Bucket=self.name, Key=found.key, IfMatch=f'"{found.etag}"', **some)
        except (BotoCoreError, ClientError) as error:
            raise explain(found.uri, error, reading=True) from None
        body = _body(answer, size)
        etag = answer.get("ETag", "").strip('"')
        if etag != found.etag:
            raise _GarbledError(f"was listed with the ETag {found.etag} and changed while being read: now {etag!r}")
        if len(body) != size:
            raise _GarbledError(f"sent {len(body)} bytes, expected {size}")
        encrypted = "SSECustomerAlgorithm" in answer or answer.get("ServerSideEncryption", "AES256") != "AES256"
        return body, self.verify_etag and not encrypted and bool(_MD5.fullmatch(etag))

    def _whole(self, name: str) -> bytes | None:
        try:
            answer = self.client().get_object(Bucket=self.name, Key=self.prefix + name)
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in {"NoSuchKey", "404"}:
                return None
            raise explain(f"{self.base}{name}", error, reading=True) from None
        body = _body(answer, answer["ContentLength"])
        if "ETag" not in answer:
            raise _GarbledError("sent something else than an object")
        return body

    def _retried(self, uri: str, attempt: Callable[[], T]) -> T:
        for number in range(self.attempts):
            try:
                return attempt()
            except _GarbledError as error:
                broken = error
                if number < self.attempts - 1:
                    time.sleep(min(0.1 * 2**number, 2))
        raise TransientError(f"{uri}: the store {broken.problem}, {self.attempts} times.", fix=broken.fix)

    def client(self) -> S3Client:
        with _connecting:
            if self not in _clients:
                config = Config(
                    retries={"mode": "adaptive", "total_max_attempts": self.attempts},
                    connect_timeout=self.connect_timeout,
                    read_timeout=self.read_timeout,
                    max_pool_connections=self.parallel_reads,
                )
                try:
                    _clients[self] = boto3.Session().client("s3", config=config)
                except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
                    raise _misconfigured(self.base, error) from None
            return _clients[self]


def _body(answer: GetObjectOutputTypeDef, size: int) -> bytes:
    """What comes, though hardly more than `size`."""
    body = bytearray()
    try:
        with closing(answer["Body"]) as stream:
            for chunk in stream.iter_chunks(1024 * 1024):
                body += chunk
                if len(body) > size:
                    break
    except (BotoCoreError, HTTPError) as error:
        raise _GarbledError(f"broke off ({error})") from None
    return bytes(body)


def explain(uri: str, error: BotoCoreError | ClientError, *, reading: bool = False) -> RefitError | PermissionError:
    """What went wrong at `uri`, to be raised. `reading`: one listed object was asked for."""
    if isinstance(error, HTTPClientError | ConnectionError):
        return _unanswered(uri, error)
    if not isinstance(error, ClientError):
        return _misconfigured(uri, error)
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or status == 429 or code in _BUSY:
        return _unanswered(uri, error)
    if code in _CREDENTIALS:
        return _misconfigured(uri, error)
    if reading and code in _GONE:
        return TransientError(f"{uri} changed while it was being read, or was deleted ({code}).", fix="run again")
    if reading and (code in _REFUSED or code.startswith("KMS.")):
        return PermissionError(errno.EACCES, f"the store does not give it out ({error})")
    if code in {"NoSuchBucket", "404"}:
        return DataError(f"{uri} does not exist ({code}).", fix="check the bucket and the prefix of --source")
    return DataError(
        f"{uri}: {error}.", fix="check the credentials' permissions (s3:ListBucket, s3:GetObject) and the endpoint"
    )


def _unanswered(uri: str, error: Exception) -> TransientError:
    return TransientError(
        f"{uri}: the store did not answer as it should ({error}).",
        fix="check AWS_ENDPOINT_URL and the network, then run again",
    )


def _misconfigured(uri: str, error: Exception) -> SettingsError:
    return SettingsError(
        f"{uri}: not reachable with the AWS configuration as it is ({error}).",
        fix="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`; "
        "AWS_ENDPOINT_URL for another store than Amazon's",
    )


def below(location: str, *names: str) -> Bucket:
    """What lies below s3://bucket/prefix and further `names`, where every content is verified by its sha256: ETags need
    not be MD5 digests there.
    """
    parts = urlsplit(location, allow_fragments=False)
    prefix = "".join(f"{name}/" for name in [*filter(None, parts.path.split("/")), *names])
    return Bucket(parts.netloc, prefix, verify_etag=False)
