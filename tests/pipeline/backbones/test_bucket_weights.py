from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.backbones import bucket_weights, tf_checkpoint, weights
from pipeline.errors import ModelError
from tests import aws


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A client of a store on loopback, with one bucket, `models`, which the AWS configuration leads to."""
    monkeypatch.setenv("REFIT_HOME", str(tmp_path / "home"))
    with aws.one_bucket(monkeypatch, "models") as client:
        yield client


def test_each_version_of_a_file_comes_once(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put_object(Bucket="models", Key="a/w.weights.h5", Body=b"one")
    first = weights.find("s3://models/a/w.weights.h5")
    monkeypatch.setattr("pipeline.buckets.bucket.Bucket.read", None)  # a second read would fail
    assert weights.find("s3://models/a/w.weights.h5") == first


def test_a_new_version_is_another_file(s3: Any) -> None:
    found = []
    for body in (b"one", b"two"):
        s3.put_object(Bucket="models", Key="w.weights.h5", Body=body)
        found.append(weights.find("s3://models/w.weights.h5"))

    assert [path.read_bytes() for path in found] == [b"one", b"two"]
    assert {path.name for path in found} == {"w.weights.h5"}


@pytest.mark.parametrize("uri", ["s3://models/hub/v1/model.ckpt", "s3://models/hub/v1", "s3://models/hub/v1/"])
def test_a_checkpoint_comes_with_all_its_files(s3: Any, tmp_path: Path, uri: str) -> None:
    prefix = tmp_path / "model.ckpt"
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant([1.0, 2.0])])
    for path in tmp_path.glob("model.ckpt*"):
        s3.upload_file(str(path), "models", f"hub/v1/{path.name}")
    s3.put_object(Bucket="models", Key="hub/v1/model.ckpt.meta", Body=b"a graph, which is not wanted")

    found = weights.find(uri)

    assert tf_checkpoint.is_checkpoint(found)
    (data, index) = tf_checkpoint.parts(found)
    assert {data.suffix, index.suffix} == {".data-00000-of-00001", ".index"}
    np.testing.assert_array_equal(tf.train.load_checkpoint(str(index.with_suffix(""))).get_tensor("a"), [1.0, 2.0])


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("s3://models/none.h5", r"nothing lies at s3://models/none\.h5"),
        ("s3://nowhere/w.h5", r"NoSuchBucket.*Fix: check the bucket, the key"),
        ("s3://models", r"expected s3://bucket/key, got 's3://models'"),
        ("s3://models/large.h5", r"expected at most 0 GiB in 64 files at s3://models/large.h5, got 0 MiB in 1"),
        ("s3://models/bad", r"a file that no folder can hold: 'x/\.\./y'"),
    ],
    ids=["no key", "no bucket", "bucket alone", "too large", "unsafe"],
)
def test_what_cannot_be_had_is_explained(s3: Any, monkeypatch: pytest.MonkeyPatch, uri: str, problem: str) -> None:
    monkeypatch.setattr(bucket_weights, "LIMIT", 100)
    s3.put_object(Bucket="models", Key="large.h5", Body=b"x" * 101)
    s3.put_object(Bucket="models", Key="bad/x/../y", Body=b"x")

    with pytest.raises(ModelError, match=problem):
        bucket_weights.fetch(uri)
