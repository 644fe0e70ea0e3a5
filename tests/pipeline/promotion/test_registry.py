from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.errors import ModelError, PromotionRefused, SettingsError, TransientError
from pipeline.promotion import audit
from pipeline.promotion.bucket_storage import BucketStorage
from pipeline.promotion.folder_storage import FolderStorage
from pipeline.promotion.opening import open_registry
from pipeline.promotion.registry import MODEL, Live, Registry
from pipeline.promotion.storage import CHECKSUMS
from tests.pipeline.promotion.models import content, go_live


def test_the_first_version_goes_live(registry: Registry, tmp_path: Path) -> None:
    assert registry.live() == Live(None, 0, None, None)
    version = registry.publish(content(tmp_path / "a", "weights"))
    registry.move_live(version, expected_generation=0, reason="first", run="r1")

    live = registry.live()

    assert (live.version, live.generation) == (1, 1)
    folder = Path(str(live.path))
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        MODEL,
        CHECKSUMS,
        "saved_model.pb",
        "variables/variables.index",
    }
    assert (folder / MODEL).read_text() == "weights"
    [move] = registry.history()
    assert {key: move[key] for key in ("previous", "version", "reason", "run", "kind", "generation")} == {
        "previous": None,
        "version": 1,
        "reason": "first",
        "run": "r1",
        "kind": "promote",
        "generation": 1,
    }
    assert move["digest"] == live.digest == files.sha256(folder / MODEL)


def test_tensorflow_loads_a_version_as_it_lies_there(registry: Registry, tmp_path: Path) -> None:
    import tensorflow as tf  # late: the processes of the races import this module too

    module = tf.Module()
    module.weight = tf.Variable([2.0, 3.0])
    module.call = tf.function(lambda x: x * module.weight, input_signature=[tf.TensorSpec([2], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "saved"))
    (tmp_path / MODEL).write_text("keras")
    saved = {path.name: path for path in (tmp_path / "saved").iterdir()}

    version = registry.publish({MODEL: tmp_path / MODEL, **saved})

    loaded = tf.saved_model.load(str(registry.fetch(version)))
    assert loaded.call(tf.constant([1.0, 10.0])).numpy().tolist() == [2.0, 30.0]


def test_a_model_has_one_version_and_each_of_its_forms_counts(registry: Registry, tmp_path: Path) -> None:
    assert [registry.publish(content(tmp_path / name, name)) for name in ("a", "b", "a")] == [1, 2, 1]
    (tmp_path / "model.tflite").write_text("lite")
    assert registry.publish(content(tmp_path / "a", "a") | {"model.tflite": tmp_path / "model.tflite"}) == 3
    (tmp_path / "card.md").write_text("words")
    assert registry.publish(content(tmp_path / "b", "b") | {"card.md": tmp_path / "card.md"}) == 2


def test_a_version_that_is_missing_never_goes_live(registry: Registry, tmp_path: Path) -> None:
    registry.publish(content(tmp_path / "a", "weights"))
    with pytest.raises(ModelError, match="there are: 1"):
        registry.move_live(7, expected_generation=0, reason="")
    assert registry.pointer().version is None


def test_a_decision_about_an_older_live_model_is_refused(registry: Registry, tmp_path: Path) -> None:
    version = registry.publish(content(tmp_path / "a", "weights"))
    registry.move_live(version, expected_generation=0, reason="a fine model", run="r1")
    with pytest.raises(PromotionRefused, match=r"from generation 0 to 1.*version 1 was promoted by .*r1.*a fine model"):
        registry.move_live(version, expected_generation=0, reason="")
    with pytest.raises(PromotionRefused, match="from generation 2 to 1"):
        registry.move_live(version, expected_generation=2, reason="")
    assert len(registry.history()) == 1


def _race(location: str, home: str, version: int, barrier: Any, results: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFIT_HOME", home)
        registry = open_registry(location, "classifier")
        for generation in range(3):
            barrier.wait()
            try:
                registry.move_live(version, expected_generation=generation, reason=f"racer {version}")
                results.put((generation, version, None))
            except PromotionRefused as refused:
                results.put((generation, version, str(refused)))
            barrier.wait()


def test_of_many_racing_promotions_exactly_one_wins_each_generation(
    registry: Registry, location: str, refit_home: Path, tmp_path: Path
) -> None:
    versions = [registry.publish(content(tmp_path / str(number), str(number))) for number in range(6)]
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(versions)), context.Queue()
    racers = [
        context.Process(target=_race, args=(location, str(refit_home), version, barrier, results))
        for version in versions
    ]
    for racer in racers:
        racer.start()
    said = [results.get(timeout=120) for _ in range(3 * len(racers))]
    for racer in racers:
        racer.join()

    moves = registry.history()
    for generation in range(3):
        [winner] = [version for at, version, refused in said if at == generation and refused is None]
        assert (moves[generation]["version"], moves[generation]["generation"]) == (winner, generation + 1)
        losers = [refused for at, _, refused in said if at == generation and refused is not None]
        assert len(losers) == len(versions) - 1
        for refused in losers:
            assert f"version {winner} was promoted by" in refused
            assert f"racer {winner}" in refused
    assert len(moves) == 3


def _publish(location: str, home: str, folder: str, text: str, barrier: Any, results: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFIT_HOME", home)
        barrier.wait()
        results.put((text, open_registry(location, "classifier").publish(content(Path(folder), text))))


def test_many_may_publish_at_once_and_every_model_gets_a_number(
    registry: Registry, location: str, refit_home: Path, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    texts = ["a", "b", "c", "c"]
    arguments = [(location, str(refit_home), str(tmp_path / f"p{n}"), text) for n, text in enumerate(texts)]
    publishers = [context.Process(target=_publish, args=(*some, barrier, results)) for some in arguments]
    for publisher in publishers:
        publisher.start()
    numbers = [results.get(timeout=120) for _ in publishers]
    for publisher in publishers:
        publisher.join()

    for text, version in numbers:
        registry.verify(version)
        assert (registry.fetch(version) / MODEL).read_text() == text
    assert len({version for text, version in numbers if text != "c"}) == 2


def test_aliases_follow_the_moves(registry: Registry, tmp_path: Path) -> None:
    assert [registry.alias(name) for name in ("live", "previous", "candidate")] == [None, None, None]
    go_live(registry, tmp_path, "a", "b")
    registry.publish(content(tmp_path / "c", "c"))
    assert [registry.alias(name) for name in ("live", "previous", "candidate")] == [2, 1, 3]
    with pytest.raises(ModelError, match="newest"):
        registry.alias("newest")


def _moves(*text: str) -> list[dict[str, Any]]:
    """ "p3" is a promotion to version 3, "r2" a rollback to version 2."""
    kinds = {"p": audit.PROMOTE, "r": audit.ROLLBACK}
    return [{"version": int(move[1:]), "kind": kinds[move[0]], "reason": ""} for move in text]


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([], []),
        (["p1", "p2", "p3"], [1, 2, 3]),
        (["p1", "p2", "p3", "r2"], [1, 2]),
        (["p1", "p2", "p3", "r2", "r1"], [1]),
        (["p1", "p2", "p3", "r2", "p4"], [1, 2, 4]),
        (["p1", "p2", "p3", "r1"], [1]),
        (["p1", "p2", "r1", "r2"], [1, 2]),
        (["p1", "p2", "p1"], [1, 2, 1]),
        (["p1", "p2", "p1", "r2"], [1, 2]),
        (["p1", "p2", "p3", "p1", "r1"], [1, 2, 3, 1]),
        (["p1", "p1"], [1]),
    ],
    ids=lambda value: "-".join(map(str, value)) or "none",
)
def test_a_rollback_takes_away_what_came_after_its_target(moves: list[str], expected: list[int]) -> None:
    assert audit.standing(_moves(*moves)) == expected


def test_moves_made_before_there_were_kinds_are_told_apart() -> None:
    old = {"version": 1, "previous": 2, "by": "anna", "at": "2026-01-01", "digest": "0", "generation": 3}
    assert audit.kind({**old, "reason": "rollback: worse on Mondays"}) == audit.ROLLBACK
    assert audit.kind({**old, "reason": "run 7: Promote: better"}) == audit.PROMOTE
    assert audit.told({**old, "reason": "rollback: worse"}) == (
        "version 1 was rolled back to by anna at 2026-01-01: rollback: worse"
    )


# In folders alone


@pytest.fixture
def folder(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "here/classifier")


def test_checksums_cover_every_file_and_a_damaged_version_never_goes_live(
    folder: FolderStorage, tmp_path: Path
) -> None:
    registry = Registry(folder)
    go_live(registry, tmp_path, "a")
    registry.publish(content(tmp_path / "b", "b"))
    index = folder.root / "2/variables/variables.index"
    index.chmod(0o644)
    index.write_text("j")
    (folder.root / "2/extra").write_text("added later")
    with pytest.raises(ModelError, match=r"damaged: extra, variables/variables\.index"):
        registry.move_live(2, expected_generation=1, reason="")
    assert registry.pointer().version == 1
    with pytest.raises(ModelError, match="damaged"):
        registry.fetch(2)


def test_published_files_are_read_only_and_can_be_removed(folder: FolderStorage, tmp_path: Path) -> None:
    version = Registry(folder).publish(content(tmp_path / "a", "a"))
    modes = {path.stat().st_mode & 0o777 for path in (folder.root / str(version)).rglob("*") if path.is_file()}
    assert modes == {0o444}
    shutil.rmtree(folder.root / str(version))


def test_a_number_is_not_given_out_again_after_its_version_was_deleted(folder: FolderStorage, tmp_path: Path) -> None:
    registry = Registry(folder)
    go_live(registry, tmp_path, "a", "b")
    shutil.rmtree(folder.root / "2")
    assert registry.publish(content(tmp_path / "c", "c")) == 3


def test_a_folder_without_checksums_is_no_version(folder: FolderStorage, tmp_path: Path) -> None:
    registry = Registry(folder)
    (folder.root / "1").mkdir(parents=True)
    (folder.root / "1" / MODEL).write_text("half of a backup")
    assert registry.versions() == []
    assert registry.publish(content(tmp_path / "a", "a")) == 2


def test_what_was_staged_long_ago_is_swept_away_and_what_is_new_is_not(folder: FolderStorage, tmp_path: Path) -> None:

    for name, age in ((".tmp-old", 25 * 3600), (".tmp-new", 3600)):
        (folder.root / name).mkdir(parents=True)
        os.utime(folder.root / name, (time.time() - age,) * 2)
    Registry(folder).publish(content(tmp_path / "a", "a"))
    assert {path.name for path in folder.root.glob(".tmp-*")} == {".tmp-new"}


def test_a_location_that_is_not_mounted_is_no_empty_registry(tmp_path: Path) -> None:
    registry = open_registry(str(tmp_path / "share"), "classifier")
    for ask in (registry.live, registry.versions, registry.history):
        with pytest.raises(TransientError, match=r"registry\.location: expected a folder"):
            ask()
    with pytest.raises(TransientError, match="mkdir"):
        registry.publish(content(tmp_path / "a", "a"))
    (tmp_path / "share").mkdir()
    assert registry.live().version is None


@pytest.mark.parametrize("location", ["gs://bucket/models", "s3:///models", "https://host/models"])
def test_other_kinds_of_places_are_refused(location: str) -> None:
    with pytest.raises(SettingsError, match=r"registry\.location: expected null, a folder or s3://bucket/prefix"):
        open_registry(location, "classifier")


def test_a_store_whose_etags_are_no_digests_can_keep_models() -> None:
    storage = open_registry("s3://bucket/models", "classifier").storage
    assert isinstance(storage, BucketStorage)
    assert not storage.bucket.verify_etag
