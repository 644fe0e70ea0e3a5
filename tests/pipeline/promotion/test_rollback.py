from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.errors import ModelError, PromotionRefused, RefitError
from pipeline.promotion.folder_storage import FolderStorage
from pipeline.promotion.registry import MODEL, Registry
from pipeline.promotion.rollback import Rolled, roll_back
from pipeline.promotion.storage import Storage
from tests.pipeline.promotion.models import content, go_live


def back(registry: Registry, to: str | None = None) -> Rolled:
    return roll_back(registry, "classifier", to=to, reason="worse on Mondays")


def test_each_rollback_goes_one_further_back_and_never_forward(registry: Registry, tmp_path: Path) -> None:
    go_live(registry, tmp_path, "a", "b", "c")
    assert back(registry) == Rolled(before=3, version=2, generation=4)
    assert back(registry, "previous") == Rolled(before=2, version=1, generation=5)
    with pytest.raises(RefitError, match=r"no earlier live version .* Fix: name one with --to; also live once: 2, 3"):
        back(registry)
    assert back(registry, "3") == Rolled(before=1, version=3, generation=6)
    assert [(move["kind"], move["version"], move["previous"]) for move in registry.history()[3:]] == [
        ("rollback", 2, 3),
        ("rollback", 1, 2),
        ("rollback", 3, 1),
    ]
    assert registry.history()[-1]["reason"] == "worse on Mondays"
    assert back(registry).version == 1, "3 was brought back on top of 1"


def test_after_a_new_promotion_a_rollback_skips_what_was_rolled_back_before(registry: Registry, tmp_path: Path) -> None:
    go_live(registry, tmp_path, "a", "b")
    back(registry)
    go_live(registry, tmp_path, "c")
    assert (registry.alias("previous"), back(registry).version) == (1, 1)


def test_rolling_back_to_what_is_live_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    go_live(registry, tmp_path, "a", "b")
    assert back(registry, "2") == back(registry, "live") == Rolled(2, 2, 2)
    assert len(registry.history()) == 2


def test_what_has_never_been_live_is_no_target(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RefitError, match="no live version"):
        back(registry)
    go_live(registry, tmp_path, "a")
    with pytest.raises(RefitError, match="no earlier live version"):
        back(registry)
    registry.publish(content(tmp_path / "b", "b"))
    for to in ("2", "candidate"):
        with pytest.raises(RefitError, match="has never been live"):
            back(registry, to)
    with pytest.raises(ModelError, match="there are: 1, 2"):
        back(registry, "7")
    with pytest.raises(RefitError, match="alias"):
        back(registry, "newest")
    assert registry.pointer().version == 1


def test_a_damaged_live_model_does_not_stand_in_the_way_and_a_damaged_target_is_named(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "registry")
    registry = Registry(storage)
    go_live(registry, tmp_path, "a", "b", "c")
    shutil.rmtree(storage.root / "3")
    (storage.root / "2" / MODEL).chmod(0o644)
    (storage.root / "2" / MODEL).write_text("flipped")
    with pytest.raises(ModelError, match=r"Version 2 is damaged: model\.keras\. Fix: go further back with --to 1"):
        back(registry)
    assert registry.pointer().version == 3
    assert back(registry, "1").version == 1


def test_a_promotion_that_comes_first_is_not_undone(registry: Registry, tmp_path: Path) -> None:
    go_live(registry, tmp_path, "a", "b")

    class Meanwhile:
        """Promotes version 3 when the checksums of the target are looked at."""

        def __init__(self, storage: Storage) -> None:
            self.storage = storage

        def __getattr__(self, name: str) -> object:
            return getattr(self.storage, name)

        def digests(self, version: int) -> dict[str, str]:
            if len(registry.history()) == 2:
                go_live(registry, tmp_path, "c")
            return self.storage.digests(version)

    with pytest.raises(PromotionRefused, match="version 3 was promoted by"):
        back(Registry(Meanwhile(registry.storage)))  # type: ignore[arg-type]
    assert registry.pointer().version == 3
