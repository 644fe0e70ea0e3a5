from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from pipeline.buckets.bucket import Bucket
from pipeline.errors import DataError, SettingsError, TransientError
from tests import aws
from tests.pipeline.buckets.faulty_proxy import (
    FaultyProxy,
    altered_etag,
    corrupted,
    cut,
    faulty_proxy,
    refused,
    shortened,
    silence,
    slow_down,
    web_page,
    with_header,
)

BODY = bytes(range(256)) * 40
DIGEST = hashlib.md5(BODY).hexdigest()


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[str, Any]]:
    """host:port of a real HTTP server on loopback that speaks S3, and a client of it."""
    with aws.at_once() as address:
        client = boto3.Session("test", "test", region_name="us-east-1").client(
            "s3", endpoint_url=f"http://{address}", config=Config(request_checksum_calculation="when_required")
        )
        yield address, client
        client.close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before an answer is asked for again, by us or by boto3."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr("botocore.retries.bucket.TokenBucket.acquire", lambda *_: True)


@pytest.fixture
def s3(store: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a store with one bucket, `photos`, which the AWS configuration leads to."""
    server, client = store
    aws.configure(monkeypatch, server)
    client.create_bucket(Bucket="photos")
    yield client
    aws.forget(server)


@pytest.fixture
def proxy(s3: Any, store: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """What the bucket of a test talks to; `s3` goes around it."""
    with faulty_proxy(store[0]) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


@pytest.fixture
def bucket() -> Bucket:
    return Bucket("photos", "", attempts=4, read_timeout=10)


def asking(bucket: Bucket, fault: Any) -> Bucket:
    """A bucket that soon takes silence for an answer, where there is any. The store shares a processor with it."""
    return replace(bucket, read_timeout=0.5) if fault is silence else bucket


def test_more_objects_than_one_page_are_all_listed(s3: Any) -> None:
    for number in range(2005):  # around HTTP, which takes 8 ms each
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("photos", f"cat/{number}.png", b"")
    assert len({found.key for found in Bucket("photos", "").list()}) == 2005


def test_what_tools_hide_or_make_of_folders_is_not_listed(s3: Any, bucket: Bucket) -> None:
    for key in ("1/a", "1/.DS_Store", "1/.tmp-x/a", ".b"):
        s3.put_object(Bucket="photos", Key=key, Body=BODY)
    s3.put_object(Bucket="photos", Key="1/folder/")
    assert [found.key for found in bucket.list()] == ["1/a"]


def test_a_copy_in_another_process_reads_the_same(s3: Any, bucket: Bucket) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    [found] = bucket.list()
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(pickle.loads(pickle.dumps(bucket)).read, [found] * 20)) == {BODY}


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192], ids=lambda size: f"{size}-bytes")
def test_objects_are_read_in_parts(proxy: FaultyProxy, s3: Any, bucket: Bucket, size: int) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY[:size])
    bucket = replace(bucket, part_bytes=4096)
    [found] = bucket.list()
    assert bucket.read(found) == BODY[:size]
    assert proxy.requests.count("/photos/cat/a.png") == max(1, -(-size // 4096))


def test_a_cut_costs_one_part(proxy: FaultyProxy, s3: Any, bucket: Bucket) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    bucket = replace(bucket, part_bytes=4096)
    [found] = bucket.list()
    proxy.spoil("cat/a.png", lambda answer: answer, cut)
    assert bucket.read(found) == BODY
    assert proxy.requests.count("/photos/cat/a.png") == 3 + 1


def test_an_object_that_was_uploaded_in_parts_has_no_digest_to_check(s3: Any, bucket: Bucket) -> None:
    whole = bytes(5 * 1024 * 1024) + BODY
    upload = {"Bucket": "photos", "Key": "cat/a.png"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"]}
        for number, body in enumerate((whole[: -len(BODY)], BODY), start=1)
    ]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    [found] = bucket.list()
    assert found.etag.endswith("-2")
    assert bucket.read(found) == whole


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (slow_down, "SlowDown"),
        (silence, "[Tt]imeout"),
        (cut, "broke off"),
        (shortened, "sent 5120 bytes, expected 10240"),
        (corrupted, f"not its ETag {DIGEST}.*ingest.verify_etag=false"),
        (altered_etag, "changed while being read"),
        (web_page, "changed while being read"),
    ],
    ids=["slow-down", "timeout", "cut", "shortened", "corrupted", "etag", "web-page"],
)
def test_a_broken_answer_is_asked_for_again_until_it_is_no_use(
    proxy: FaultyProxy, s3: Any, bucket: Bucket, fault: Any, message: str
) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    [found] = bucket.list()
    bucket = asking(bucket, fault)
    proxy.spoil("cat/a.png", fault, times=2)
    assert bucket.read(found) == BODY
    proxy.spoil("cat/a.png", fault, times=1000)
    asked = len(proxy.requests)
    with pytest.raises(TransientError, match=rf"s3://photos/cat/a\.png.*{message}"):
        bucket.read(found)
    assert len(proxy.requests) - asked == bucket.attempts


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (slow_down, "SlowDown"),
        (silence, "[Tt]imeout"),
        (cut, "did not answer as it should"),
        (shortened, "did not answer as it should"),
        (web_page, "without its end"),
    ],
    ids=["slow-down", "timeout", "cut", "shortened", "web-page"],
)
def test_a_listing_that_breaks_on_its_second_page_is_continued_or_fails_as_a_whole(
    proxy: FaultyProxy, s3: Any, bucket: Bucket, fault: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    for number in range(5):
        s3.put_object(Bucket="photos", Key=f"cat/{number}.png")
    bucket = asking(bucket, fault)
    proxy.spoil("continuation-token", fault, times=2)
    assert [found.key for found in bucket.list()] == [f"cat/{number}.png" for number in range(5)]
    proxy.spoil("continuation-token", fault, times=1000)
    with pytest.raises(TransientError, match=message):
        list(bucket.list())


def test_bytes_of_another_version_are_never_taken(s3: Any, bucket: Bucket) -> None:
    for key in ("cat/changed.png", "cat/deleted.png"):
        s3.put_object(Bucket="photos", Key=key, Body=b"old")
    changed, deleted = bucket.list()
    s3.put_object(Bucket="photos", Key=changed.key, Body=b"new")
    s3.delete_object(Bucket="photos", Key=deleted.key)
    for found in (changed, deleted):
        with pytest.raises(TransientError, match=rf"{found.uri} changed while .* or was deleted"):
            bucket.read(found)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
    ],
    ids=["kms", "customer-key"],
)
def test_the_etag_of_an_object_with_its_own_key_is_no_digest(
    proxy: FaultyProxy, s3: Any, bucket: Bucket, header: str, value: str
) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    [found] = bucket.list()
    proxy.spoil("cat/a.png", lambda answer: with_header(header, value, corrupted(answer)))
    assert bucket.read(found) != BODY


def test_a_store_whose_etags_are_no_digests_can_be_read(proxy: FaultyProxy, s3: Any, bucket: Bucket) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    [found] = bucket.list()
    proxy.spoil("cat/a.png", corrupted)
    assert replace(bucket, verify_etag=False).read(found) == BODY[:-1] + b"\xfe"


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState", "KMS.DisabledException"])
def test_one_object_that_the_store_keeps_is_that_objects_own_problem(
    proxy: FaultyProxy, s3: Any, bucket: Bucket, code: str
) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    [found] = bucket.list()
    proxy.spoil("cat/a.png", partial(refused, 403, code))
    with pytest.raises(PermissionError, match=code):
        bucket.read(found)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("AccessDenied", DataError, "s3:ListBucket"),
        ("NoSuchBucket", DataError, "does not exist"),
        ("InvalidAccessKeyId", SettingsError, "AWS_PROFILE"),
        ("ExpiredToken", SettingsError, "AWS_PROFILE"),
    ],
)
def test_a_bucket_that_may_not_be_listed_says_what_to_do(
    proxy: FaultyProxy, bucket: Bucket, code: str, kind: type[Exception], message: str
) -> None:
    proxy.spoil("list-type", partial(refused, 403, code))
    with pytest.raises(kind, match=message):
        list(bucket.list())


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, SettingsError, "credentials"),
        ({"AWS_PROFILE": "nobody"}, SettingsError, "nobody"),
        ({"AWS_ENDPOINT_URL": "no url"}, SettingsError, "no url"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, TransientError, "check AWS_ENDPOINT_URL"),
    ],
    ids=["no-credentials", "profile", "endpoint", "nobody-listens"],
)
def test_a_wrong_aws_configuration_says_what_to_do(
    s3: Any,
    bucket: Bucket,
    changes: dict[str, str | None],
    kind: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name, value in changes.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(kind, match=message):
        list(bucket.list())


def test_a_small_object_comes_in_one_request(proxy: FaultyProxy, s3: Any, bucket: Bucket) -> None:
    s3.put_object(Bucket="photos", Key="notes/a.json", Body=BODY)
    s3.put_object(Bucket="photos", Key="notes/empty", Body=b"")
    notes = replace(bucket, prefix="notes/", read_timeout=10)
    assert (notes.get("a.json"), notes.get("empty"), notes.get("b.json")) == (BODY, b"", None)
    assert len(proxy.requests) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (slow_down, "SlowDown"),
        (silence, "[Tt]imeout"),
        (cut, "broke off"),
        (web_page, "something else than an object"),
    ],
    ids=["slow-down", "timeout", "cut", "web-page"],
)
def test_a_broken_small_object_is_asked_for_again_until_it_is_no_use(
    proxy: FaultyProxy, s3: Any, bucket: Bucket, fault: Any, message: str
) -> None:
    s3.put_object(Bucket="photos", Key="a.json", Body=BODY)
    bucket = asking(bucket, fault)
    proxy.spoil("a.json", fault, times=2)
    assert bucket.get("a.json") == BODY
    proxy.spoil("a.json", fault, times=1000)
    with pytest.raises(TransientError, match=rf"s3://photos/a\.json.*{message}"):
        bucket.get("a.json")


def test_a_missing_bucket_has_no_objects_to_be_missing(s3: Any, bucket: Bucket) -> None:
    with pytest.raises(DataError, match="does not exist"):
        replace(bucket, name="nowhere").get("a.json")
