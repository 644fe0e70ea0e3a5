"""A registry in a folder and one in a bucket: what holds for one holds for the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.promotion.opening import open_registry
from pipeline.promotion.registry import Registry
from tests import aws

MODEL_NAME = "classifier"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an empty bucket of a store on loopback, which the AWS configuration leads to."""
    with aws.one_at_a_time() as address:
        aws.configure(monkeypatch, address)
        yield aws.new_bucket()


@pytest.fixture(params=["folder", "bucket"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `registry.location` may be."""
    if request.param == "bucket":
        return f"s3://{request.getfixturevalue('bucket')}/retraining/models"
    (tmp_path / "registry").mkdir()
    return str(tmp_path / "registry")


@pytest.fixture
def registry(location: str) -> Registry:
    return open_registry(location, MODEL_NAME)
