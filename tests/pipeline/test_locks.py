from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import locks
from pipeline.errors import RefitError, TransientError


def test_one_holds_it_alone_or_several_share_it(tmp_path: Path) -> None:
    with locks.opened(tmp_path / "new/lock") as first, locks.opened(tmp_path / "new/lock") as second:
        assert locks.lock(first)
        assert not locks.lock(second, seconds=0)
        assert not locks.lock(second, shared=True, seconds=0.1)
        assert locks.lock(first, shared=True)
        assert locks.lock(second, shared=True, seconds=0)
        assert not locks.lock(second, seconds=0)
    with locks.opened(tmp_path / "new/lock") as third:
        assert locks.lock(third, seconds=0)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOTSUP, RefitError),
        (errno.ENOSYS, RefitError),
        (errno.ENOLCK, TransientError),
        (errno.EIO, TransientError),
    ],
    ids=errno.errorcode.get,
)
def test_a_file_system_without_locks_is_named_and_one_that_is_away_is_worth_a_retry(
    number: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        locks.opened(tmp_path / "lock") as stream,
        pytest.raises(RefitError, match=r"file system with locks") as caught,
    ):
        locks.lock(stream)
    assert type(caught.value) is kind
