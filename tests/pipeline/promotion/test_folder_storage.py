"""Folders that are network file systems, of which there is none here: `os` behaves as theirs does."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ModelError
from pipeline.promotion.registry import Registry
from tests.pipeline.promotion.models import content


@pytest.fixture
def location(tmp_path: Path) -> str:
    (tmp_path / "registry").mkdir()
    return str(tmp_path / "registry")


def test_a_rename_that_nfs_has_repeated_is_done(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer was lost; the second request finds the old name gone."""
    rename = Path.rename

    def repeated(path: Path, target: Any) -> Path:
        rename(path, target)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", repeated)
    assert registry.publish(content(tmp_path / "a", "weights")) == 1
    assert registry.storage.versions() == [1]
    assert [path.name for path in (tmp_path / "registry/classifier").iterdir()] == ["1"]


def test_a_file_system_without_hard_links_is_named(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    version = registry.publish(content(tmp_path / "a", "weights"))
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ModelError, match="hard links"):
        registry.move_live(version, expected_generation=0, reason="first", run="r1")
    assert registry.live().version is None
