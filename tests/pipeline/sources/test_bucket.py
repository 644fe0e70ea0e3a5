from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import DataError
from pipeline.sources.source import open_source
from tests import aws

BODY = bytes(range(256)) * 40
DIGEST = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a store with one bucket, `photos`, which the AWS configuration leads to."""
    with aws.one_bucket(monkeypatch, "photos") as client:
        yield client


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


def test_a_missing_bucket_is_named(s3: Any) -> None:
    with pytest.raises(DataError, match="s3://nowhere/"):
        list(open_source("s3://nowhere").list())


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
