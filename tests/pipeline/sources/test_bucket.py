from __future__ import annotations

import hashlib
import pickle
import time
import urllib.request
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
from moto.server import ThreadedMotoServer

from pipeline.errors import DataError, SettingsError, TransientError
from pipeline.sources.bucket import BucketSource
from pipeline.sources.source import open_source
from tests import aws
from tests.pipeline.sources.faulty_proxy import (
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
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    client = boto3.Session("test", "test", region_name="us-east-1").client(
        "s3", endpoint_url=f"http://{host}:{port}", config=Config(request_checksum_calculation="when_required")
    )
    yield f"{host}:{port}", client
    client.close()
    moto.stop()


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
    urllib.request.urlopen(urllib.request.Request(f"http://{server}/moto-api/reset", method="POST"), timeout=10)


@pytest.fixture
def proxy(s3: Any, store: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """What the sources of a test talk to; `s3` goes around it."""
    with faulty_proxy(store[0]) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


@pytest.fixture
def source() -> BucketSource:
    return BucketSource("photos", "", attempts=4, read_timeout=0.15)


def test_labels_and_versions_are_listed(s3: Any) -> None:
    for key in (
        "in/cat/a b.png",
        "in/deep/dog/ü.png",
        "in/loose.png",
        "in/cafe\u0301/x.png",
        "in/.hidden/x.png",
        "in/cat/.x.png",
        "in2/cat/z.png",
    ):
        s3.put_object(Bucket="photos", Key=key, Body=BODY)
    s3.put_object(Bucket="photos", Key="in/cat/")  # a console's "new folder"
    items = {item.key: item for item in open_source("s3://photos/in").list()}
    assert {key: item.label for key, item in items.items()} == {
        "in/cat/a b.png": "cat",
        "in/deep/dog/ü.png": "dog",
        "in/loose.png": None,
        "in/cafe\u0301/x.png": "caf\u00e9",
    }
    item = items["in/cat/a b.png"]
    assert (item.uri, item.version, item.bytes, item.problem) == ("s3://photos/in/cat/a b.png", DIGEST, 10240, None)
    assert items["in/loose.png"].problem == ("no-label", "lies in no class folder")


def test_keys_that_are_no_paths_are_accounted_for(s3: Any) -> None:
    keys = {"cat/../x.png", "cat/./x.png", "cat//x.png", "/x.png", "../x.png", "cat/x.png/"}
    for key in keys:
        s3.put_object(Bucket="photos", Key=f"in/{key}", Body=BODY)
    items = list(open_source("s3://photos/in").list())
    assert {item.uri for item in items} == {f"s3://photos/in/{key}" for key in keys}
    assert {(item.label, item.problem and item.problem[0]) for item in items} == {(None, "unsafe-name")}


def test_names_that_urls_treat_specially_are_read(s3: Any) -> None:
    prefix = "a b+c%20#?ü"
    names = {"a b", "a+b", "a%20b", "a&b=c", "a?b", "a#b", "ü語", "a'\"b", "a..b", "a\\b", "<a>;"}
    for name in names:
        s3.put_object(Bucket="photos", Key=f"{prefix}/{name}/{name}.png", Body=name.encode())
    source = open_source(f"s3://photos/{prefix}/")
    items = list(source.list())
    assert {item.uri for item in items} == {f"s3://photos/{prefix}/{name}/{name}.png" for name in names}
    assert {source.read(item).decode() for item in items} == {item.label for item in items} == names


def test_more_objects_than_one_page_are_all_listed(s3: Any) -> None:
    for number in range(2005):  # around HTTP, which takes 8 ms each
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("photos", f"cat/{number}.png", b"")
    assert len({item.key for item in open_source("s3://photos").list()}) == 2005


def test_a_copy_in_another_process_reads_the_same(s3: Any, source: BucketSource) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    [item] = source.list()
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(pickle.loads(pickle.dumps(source)).read, [item] * 20)) == {BODY}


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192], ids=lambda size: f"{size}-bytes")
def test_objects_are_read_in_parts(proxy: FaultyProxy, s3: Any, source: BucketSource, size: int) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY[:size])
    source = replace(source, part_bytes=4096)
    [item] = source.list()
    assert source.read(item) == BODY[:size]
    assert proxy.requests.count("/photos/cat/a.png") == max(1, -(-size // 4096))


def test_a_cut_costs_one_part(proxy: FaultyProxy, s3: Any, source: BucketSource) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    source = replace(source, part_bytes=4096)
    [item] = source.list()
    proxy.spoil("cat/a.png", lambda answer: answer, cut)
    assert source.read(item) == BODY
    assert proxy.requests.count("/photos/cat/a.png") == 3 + 1


def test_an_object_that_was_uploaded_in_parts_has_no_digest_to_check(s3: Any, source: BucketSource) -> None:
    whole = bytes(5 * 1024 * 1024) + BODY
    upload = {"Bucket": "photos", "Key": "cat/a.png"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"]}
        for number, body in enumerate((whole[: -len(BODY)], BODY), start=1)
    ]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    [item] = source.list()
    assert item.version.endswith("-2")
    assert source.read(item) == whole


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
    proxy: FaultyProxy, s3: Any, source: BucketSource, fault: Any, message: str
) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    [item] = source.list()
    proxy.spoil("cat/a.png", fault, times=2)
    assert source.read(item) == BODY
    proxy.spoil("cat/a.png", fault, times=1000)
    asked = len(proxy.requests)
    with pytest.raises(TransientError, match=rf"s3://photos/cat/a\.png.*{message}"):
        source.read(item)
    assert len(proxy.requests) - asked == source.attempts


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
    proxy: FaultyProxy, s3: Any, source: BucketSource, fault: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    for number in range(5):
        s3.put_object(Bucket="photos", Key=f"cat/{number}.png")
    proxy.spoil("continuation-token", fault, times=2)
    assert [item.key for item in source.list()] == [f"cat/{number}.png" for number in range(5)]
    proxy.spoil("continuation-token", fault, times=1000)
    with pytest.raises(TransientError, match=message):
        list(source.list())


def test_bytes_of_another_version_are_never_taken(s3: Any, source: BucketSource) -> None:
    for key in ("cat/changed.png", "cat/deleted.png"):
        s3.put_object(Bucket="photos", Key=key, Body=b"old")
    changed, deleted = source.list()
    s3.put_object(Bucket="photos", Key=changed.key, Body=b"new")
    s3.delete_object(Bucket="photos", Key=deleted.key)
    for item in (changed, deleted):
        with pytest.raises(TransientError, match=rf"{item.uri} changed while .* or was deleted"):
            source.read(item)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
    ],
    ids=["kms", "customer-key"],
)
def test_the_etag_of_an_object_with_its_own_key_is_no_digest(
    proxy: FaultyProxy, s3: Any, source: BucketSource, header: str, value: str
) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    [item] = source.list()
    proxy.spoil("cat/a.png", lambda answer: with_header(header, value, corrupted(answer)))
    assert source.read(item) != BODY


def test_a_store_whose_etags_are_no_digests_can_be_read(proxy: FaultyProxy, s3: Any, source: BucketSource) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    [item] = source.list()
    proxy.spoil("cat/a.png", corrupted)
    assert replace(source, verify_etag=False).read(item) == BODY[:-1] + b"\xfe"


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState", "KMS.DisabledException"])
def test_one_object_that_the_store_keeps_is_that_objects_own_problem(
    proxy: FaultyProxy, s3: Any, source: BucketSource, code: str
) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=BODY)
    [item] = source.list()
    proxy.spoil("cat/a.png", partial(refused, 403, code))
    with pytest.raises(PermissionError, match=code):
        source.read(item)


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
    proxy: FaultyProxy, source: BucketSource, code: str, kind: type[Exception], message: str
) -> None:
    proxy.spoil("list-type", partial(refused, 403, code))
    with pytest.raises(kind, match=message):
        list(source.list())


def test_a_missing_bucket_is_named(s3: Any) -> None:
    with pytest.raises(DataError, match="s3://nowhere/"):
        list(open_source("s3://nowhere").list())


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
    source: BucketSource,
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
        list(source.list())


def test_labels_may_lie_in_the_bucket_or_in_another(s3: Any) -> None:
    for key in ("in/a.png", "in/b.png"):
        s3.put_object(Bucket="photos", Key=key, Body=BODY)
    s3.put_object(Bucket="photos", Key="in/labels.csv", Body=b"path,label\na.png,cat\nb.png,dog\n")
    s3.put_object(Bucket="photos", Key="meta/v2.jsonl", Body=b'{"path": "s3://photos/in/a.png", "label": "owl"}')
    assert [item.label for item in open_source("s3://photos/in").list()] == ["cat", "dog"]
    items = {item.key: item.label for item in open_source("s3://photos/in", labels="s3://photos/meta/v2.jsonl").list()}
    assert items == {"in/a.png": "owl", "in/b.png": None, "in/labels.csv": None}
    with pytest.raises(DataError, match=r"s3://photos/meta/v3\.csv"):
        list(open_source("s3://photos/in", labels="s3://photos/meta/v3.csv").list())
