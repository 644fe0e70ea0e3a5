"""Small objects that are written once, below a prefix of a bucket.

Nothing can be renamed or locked there. What only one of many may write is written on the condition that it does not
exist yet (`If-None-Match: *`): of all who ask, the store lets one in.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError

from pipeline.buckets.bucket import Bucket, Object, below, explain
from pipeline.errors import DataError, SettingsError, TransientError

_ATTEMPTS = 8
_TAKEN, _CONFLICT = 412, 409  # the second: two writes at once, of which the store has let in neither or one


@dataclass(frozen=True)
class Objects:
    bucket: Bucket
    setting: str  # the key of params.yaml that names the place, for errors
    harm: str  # what would happen without conditional writes, for errors

    @property
    def base(self) -> str:
        return self.bucket.base.rstrip("/")

    def names(self, below: str = "") -> list[str]:
        """Of all objects whose names begin with `below`."""
        return [name for name, _ in self.items(below)]

    def items(self, below: str = "") -> list[tuple[str, Object]]:
        with self.explained():
            return [(found.key.removeprefix(self.bucket.prefix), found) for found in self.bucket.list(below)]

    def read(self, name: str) -> bytes | None:
        with self.explained():
            return self.bucket.get(name)

    def content(self, found: Object) -> bytes:
        with self.explained():
            return self.bucket.read(found)

    def create(self, name: str, body: bytes) -> bool:
        """Write an object that must not exist; False if it does, with other content.

        The same content is ours: an answer that was lost makes boto3 ask again, and the second answer is that the
        object exists.
        """
        for number in range(_ATTEMPTS):
            if self.put(name, BytesIO(body), hashlib.sha256(body).digest(), only_new=True):
                return True
            if (found := self.read(name)) is not None:
                return found == body
            time.sleep(min(0.1 * 2**number, 2))
        raise TransientError(
            f"{self.bucket.base}{name}: the store says that it exists and that it does not, {_ATTEMPTS} times.",
            fix="run again",
        )

    def put(self, name: str, body: IO[bytes], sha256: bytes, *, only_new: bool = False) -> bool:
        """False if it must be new and is not, or another is being written at the same time."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_new else {}
        with self.explained():
            try:
                self.bucket.client().put_object(
                    Bucket=self.bucket.name,
                    Key=self.bucket.prefix + name,
                    Body=body,
                    ChecksumSHA256=base64.b64encode(sha256).decode(),
                    **condition,
                )
            except (BotoCoreError, ClientError) as error:
                status = _status(error)
                if only_new and status in {_TAKEN, _CONFLICT}:
                    return False
                if only_new and status == 501:
                    raise self._unconditional("refuses") from None
                raise explain(self.bucket.base + name, error) from None
        return True

    def check_conditions(self, name: str) -> None:
        """Try them on an object of our own. A store that takes no notice of them would let every racer win.

        Raises `SettingsError`.
        """
        body = b"{}\n"
        for _ in range(2):
            if not self.put(name, BytesIO(body), hashlib.sha256(body).digest(), only_new=True):
                return
        raise self._unconditional("takes no notice of")

    def _unconditional(self, does: str) -> SettingsError:
        return SettingsError(
            f"{self.setting}: the store of {self.base} {does} conditional writes (If-None-Match: *), so that "
            f"{self.harm}.",
            fix="use a store that has them (Amazon S3, MinIO from 2024, Ceph from Squid), or a folder",
        )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """The bucket's errors, told of the setting. What may pass by itself stays a `TransientError`."""
        fix = f"check {self.setting}, and that the credentials allow s3:ListBucket, s3:GetObject and s3:PutObject"
        try:
            yield
        except DataError as error:
            raise SettingsError(f"{self.setting}: {error.problem}", fix=fix) from None
        except PermissionError as error:
            raise SettingsError(f"{self.setting}: {self.base}: {error}.", fix=fix) from None


def remote(location: str) -> Objects:
    """What machines share below execution.remote, which is s3://bucket/prefix. Touches nothing yet."""
    return Objects(below(location), "execution.remote", "folds would overwrite each other's results")


def _status(error: BotoCoreError | ClientError) -> int:
    if not isinstance(error, ClientError):
        return 0
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
