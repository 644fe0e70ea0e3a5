"""What only a bucket can do wrong."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipeline.buckets import objects
from pipeline.buckets.bucket import Bucket
from pipeline.errors import ModelError, PromotionRefused, SettingsError, TransientError
from pipeline.promotion import bucket_storage
from pipeline.promotion.bucket_storage import BucketStorage
from pipeline.promotion.opening import open_registry
from pipeline.promotion.registry import MODEL, Registry
from tests import aws
from tests.pipeline.promotion.models import content, go_live

Answer = Callable[[dict[str, Any], Callable[[], list[bytes]]], list[bytes] | tuple[str, bytes]]


class Store:
    """A store on loopback whose answers a test may replace: `spoil(environ, carry_out)` gives the answer's body after
    the request was carried out, or a status and a body of its own."""

    def __init__(self) -> None:
        self.spoil: Answer | None = None
        self.requests: list[str] = []

    def around(self, app: aws.App) -> aws.App:
        def call(environ: dict[str, Any], start: Any) -> Any:
            self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
            if self.spoil is None:
                return app(environ, start)
            answer = self.spoil(environ, lambda: list(app(environ, start)))
            if isinstance(answer, list):
                return answer
            start(answer[0], [("Content-Length", str(len(answer[1]))), ("Content-Type", "application/xml")])
            return [answer[1]]

        return call


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    found = Store()
    with aws.one_at_a_time(found.around) as address:
        aws.configure(monkeypatch, address)
        yield found


@pytest.fixture
def bucket(store: Store) -> str:
    return aws.new_bucket()


@pytest.fixture
def registry(bucket: str, refit_home: Path) -> Registry:
    """As `open_registry` gives it, but sooner tired of asking."""
    source = Bucket(bucket, "models/classifier/", attempts=2, read_timeout=10)
    patient = open_registry(f"s3://{bucket}/models", "classifier").storage
    impatient = BucketStorage(source, refit_home / "cache/models/classifier")
    assert (patient.base, patient.uri(3)) == (impatient.base, impatient.uri(3))
    return Registry(impatient)


@pytest.fixture
def s3(store: Store) -> Iterator[Any]:
    client = boto3.Session().client("s3")
    yield client
    client.close()


def keys(s3: Any, bucket: str) -> set[str]:
    return {entry["Key"].removeprefix("models/classifier/") for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]}


def refused(status: str, code: str) -> tuple[str, bytes]:
    return status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()


def test_the_layout_is_what_tensorflow_serving_reads(registry: Registry, s3: Any, bucket: str, tmp_path: Path) -> None:
    go_live(registry, tmp_path, "a")
    assert keys(s3, bucket) == {
        *("claims/00000000.json", "claims/00000001.json", "live/00000001.json"),
        *("1/saved_model.pb", "1/variables/variables.index", f"1/{MODEL}", "1/checksums.json"),
    }


def test_what_lacks_its_checksums_is_no_version_and_its_number_stays_taken(
    registry: Registry, s3: Any, bucket: str, tmp_path: Path
) -> None:
    registry.publish(content(tmp_path / "a", "a"))
    s3.delete_object(Bucket=bucket, Key="models/classifier/1/checksums.json")
    assert registry.versions() == []
    with pytest.raises(ModelError, match=r"Version 1 is not in .*there are: none"):
        registry.verify(1)
    assert registry.publish(content(tmp_path / "b", "b")) == 2
    assert registry.publish(content(tmp_path / "a", "a")) == 1, "the very same files take their number up again"
    assert registry.versions() == [1, 2]


def test_a_store_that_takes_no_notice_of_conditions_is_refused(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    def spoil(environ: dict[str, Any], carry_out: Callable[[], list[bytes]]) -> list[bytes]:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return carry_out()

    store.spoil = spoil
    with pytest.raises(SettingsError, match=r"registry\.location: .* takes no notice of conditional writes"):
        registry.publish(content(tmp_path / "a", "a"))
    assert registry.versions() == []


def test_a_store_that_has_no_conditional_writes_is_refused(registry: Registry, store: Store, tmp_path: Path) -> None:
    store.spoil = lambda environ, carry_out: (
        refused("501 Not Implemented", "NotImplemented") if "HTTP_IF_NONE_MATCH" in environ else carry_out()
    )
    with pytest.raises(SettingsError, match="refuses conditional writes"):
        registry.publish(content(tmp_path / "a", "a"))


def test_who_wins_but_does_not_hear_of_it_has_won(registry: Registry, store: Store, tmp_path: Path) -> None:
    """The first answer to the write of the move is lost; boto3 asks again and is told that the object exists."""
    version = registry.publish(content(tmp_path / "a", "a"))
    lost = []

    def spoil(environ: dict[str, Any], carry_out: Callable[[], list[bytes]]) -> list[bytes] | tuple[str, bytes]:
        answer = carry_out()
        if "/live/" in environ["PATH_INFO"] and environ["REQUEST_METHOD"] == "PUT" and not lost:
            lost.append(answer)
            raise ConnectionError("cut")
        return answer

    store.spoil = spoil
    live = registry.move_live(version, expected_generation=0, reason="mine")
    assert (live.version, len(lost)) == (1, 1)
    assert [move["reason"] for move in registry.history()] == ["mine"]


def test_a_conflict_is_asked_again_until_the_store_knows_who_has_won(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    version = registry.publish(content(tmp_path / "a", "a"))
    conflicts = 2

    def spoil(environ: dict[str, Any], carry_out: Callable[[], list[bytes]]) -> list[bytes] | tuple[str, bytes]:
        nonlocal conflicts
        if "/live/" in environ["PATH_INFO"] and environ["REQUEST_METHOD"] == "PUT" and conflicts:
            conflicts -= 1
            return refused("409 Conflict", "ConditionalRequestConflict")
        return carry_out()

    store.spoil = spoil
    assert registry.move_live(version, expected_generation=0, reason="").generation == 1
    assert conflicts == 0


def test_a_conflict_that_another_has_won_is_lost(
    registry: Registry, store: Store, s3: Any, bucket: str, tmp_path: Path
) -> None:
    go_live(registry, tmp_path, "a", "b")
    theirs = s3.get_object(Bucket=bucket, Key="models/classifier/live/00000002.json")["Body"].read()
    s3.delete_object(Bucket=bucket, Key="models/classifier/live/00000002.json")

    def spoil(environ: dict[str, Any], carry_out: Callable[[], list[bytes]]) -> list[bytes] | tuple[str, bytes]:
        if "/live/" in environ["PATH_INFO"] and environ["REQUEST_METHOD"] == "PUT":
            store.spoil = None
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            winner.append(True)
            return refused("409 Conflict", "ConditionalRequestConflict")
        return carry_out()

    winner: list[bool] = []
    find = objects.Objects.read

    def put_theirs_first(self: Any, name: str) -> bytes | None:
        if winner:
            winner.clear()
            s3.put_object(Bucket=bucket, Key="models/classifier/live/00000002.json", Body=theirs)
        return find(self, name)

    store.spoil = spoil
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects.Objects, "read", put_theirs_first)
        with pytest.raises(PromotionRefused, match="version 2 was promoted by"):
            registry.move_live(1, expected_generation=1, reason="")


def test_what_was_altered_on_its_way_is_never_seen(registry: Registry, store: Store, tmp_path: Path) -> None:
    def spoil(environ: dict[str, Any], carry_out: Callable[[], list[bytes]]) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith("variables.index"):
            environ["wsgi.input"] = io.BytesIO(b"j")  # instead of "i"
        return carry_out()

    store.spoil = spoil
    with pytest.raises(ModelError, match=r"differs from what was sent: variables/variables\.index"):
        registry.publish(content(tmp_path / "a", "a"))
    assert registry.versions() == []
    store.spoil = None
    assert registry.publish(content(tmp_path / "a", "a")) == 1


def test_a_damaged_version_is_not_fetched_verified_or_made_live(
    registry: Registry, s3: Any, bucket: str, tmp_path: Path
) -> None:
    go_live(registry, tmp_path, "a")
    registry.publish(content(tmp_path / "b", "b"))
    s3.put_object(Bucket=bucket, Key="models/classifier/2/saved_model.pb", Body=b"of another model")
    for use in (registry.verify, registry.fetch):
        with pytest.raises(ModelError, match=r"Version 2 is damaged: saved_model\.pb"):
            use(2)
    with pytest.raises(ModelError, match="damaged"):
        registry.move_live(2, expected_generation=1, reason="")
    assert registry.pointer().version == 1


def test_a_version_is_fetched_once_and_again_when_its_copy_is_damaged(
    registry: Registry, store: Store, refit_home: Path, tmp_path: Path
) -> None:
    go_live(registry, tmp_path, "a")
    folder = Path(str(registry.live().path))
    assert folder == refit_home / "cache/models/classifier/1"

    store.requests.clear()
    assert Path(str(registry.live().path)) == folder
    assert not [request for request in store.requests if request.endswith(MODEL)]

    (folder / MODEL).chmod(0o644)
    (folder / MODEL).write_text("flipped bits")
    assert Path(str(registry.live().path)) == folder
    assert (folder / MODEL).read_text() == "a"
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_many_may_fetch_at_once(registry: Registry, refit_home: Path, tmp_path: Path) -> None:
    go_live(registry, tmp_path, "a")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: registry.live(), range(6)))
    assert len(set(found)) == 1
    assert (Path(str(found[0].path)) / MODEL).read_text() == "a"
    assert [path.name for path in (refit_home / "cache/models/classifier").iterdir()] == ["1"]


def test_the_copy_of_another_registry_is_not_taken_for_this_ones(registry: Registry, tmp_path: Path) -> None:
    other = open_registry(f"s3://{aws.new_bucket()}", "classifier")
    for one, text in ((registry, "a"), (other, "b"), (registry, "a")):
        if not one.versions():
            go_live(one, tmp_path / text, text)
        assert (Path(str(one.live().path)) / MODEL).read_text() == text


@pytest.mark.parametrize(
    ("spoil", "error", "problem"),
    [
        (("500 Internal Error", "InternalError"), TransientError, "did not answer"),
        (("403 Forbidden", "AccessDenied"), SettingsError, r"registry\.location: .*AccessDenied"),
        (("404 Not Found", "NoSuchBucket"), SettingsError, r"registry\.location: .*does not exist"),
        (("403 Forbidden", "InvalidAccessKeyId"), SettingsError, "AWS_PROFILE"),
    ],
    ids=["broken", "not allowed", "no bucket", "wrong key"],
)
def test_a_registry_that_does_not_answer_never_looks_empty(
    registry: Registry,
    store: Store,
    tmp_path: Path,
    spoil: tuple[str, str],
    error: type[Exception],
    problem: str,
) -> None:
    store.spoil = lambda environ, carry_out: refused(*spoil)
    for ask in (registry.live, registry.versions, registry.history, lambda: registry.alias("live")):
        with pytest.raises(error, match=problem):
            ask()
    with pytest.raises(error, match=problem):
        registry.publish(content(tmp_path / "a", "a"))


def test_a_model_that_is_too_large_is_refused_before_anything_is_sent(
    registry: Registry, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bucket_storage, "LIMIT", 10)
    with pytest.raises(ModelError, match="at most 0 GiB"):
        registry.publish(content(tmp_path / "a", "a"))
    assert not [request for request in store.requests if request.startswith("PUT") and "classifier" in request]


def test_each_file_is_sent_with_its_checksum(registry: Registry, store: Store, tmp_path: Path) -> None:
    sent = {}

    def spoil(environ: dict[str, Any], carry_out: Callable[[], list[bytes]]) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "PUT":
            sent[environ["PATH_INFO"].rpartition("/")[2]] = environ["HTTP_X_AMZ_CHECKSUM_SHA256"]
        return carry_out()

    store.spoil = spoil
    registry.publish(content(tmp_path / "a", "a"))
    assert sent[MODEL] == base64.b64encode(hashlib.sha256(b"a").digest()).decode()
    assert sent["saved_model.pb"] == base64.b64encode(hashlib.sha256(b"graph of a").digest()).decode()
