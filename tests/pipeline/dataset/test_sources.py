from __future__ import annotations

import pickle
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline.dataset.sources import open_source
from pipeline.errors import DataError, TransientError


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a real HTTP server on loopback that speaks S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    yield client
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST"), timeout=10)
    server.stop()


def test_a_bucket_is_listed_with_labels_and_versions(s3: Any, png: Callable[..., bytes]) -> None:
    for key in (
        "in/cat/a b.png",
        "in/deep/dog/ü.png",
        "in/loose.png",
        "in/.hidden/x.png",
        "in/cat/",
        "other/cat/z.png",
    ):
        s3.put_object(Bucket="photos", Key=key, Body=png(len(key)))
    source = open_source("s3://photos/in")
    items = {item.uri: item for item in source.list()}
    assert {uri: item.label for uri, item in items.items()} == {
        "s3://photos/in/cat/a b.png": "cat",
        "s3://photos/in/deep/dog/ü.png": "dog",
        "s3://photos/in/loose.png": None,
    }
    item = items["s3://photos/in/cat/a b.png"]
    assert pickle.loads(pickle.dumps(source)).read(item) == png(len("in/cat/a b.png"))
    assert item.bytes == len(png(len("in/cat/a b.png")))


def test_more_objects_than_one_page_are_all_listed(s3: Any) -> None:
    for number in range(1005):
        s3.put_object(Bucket="photos", Key=f"cat/{number}.png", Body=b"x")
    assert len(list(open_source("s3://photos").list())) == 1005


def test_an_object_that_changes_after_it_was_listed_is_not_taken_for_the_old_one(s3: Any) -> None:
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=b"old")
    source = open_source("s3://photos")
    [item] = source.list()
    s3.put_object(Bucket="photos", Key="cat/a.png", Body=b"new")
    with pytest.raises(TransientError, match="changed while"):
        source.read(item)


def test_a_missing_bucket_is_named(s3: Any) -> None:
    with pytest.raises(DataError, match="s3://nowhere/"):
        list(open_source("s3://nowhere").list())
