"""An ingest that ends early is taken up where it stopped, by any run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.dataset import store
from pipeline.errors import TransientError
from pipeline.ingestion import journal
from pipeline.ingestion.answers import Checked, Limits
from pipeline.sources.source import Item
from tests.pipeline.ingestion.shelf import LIMITS, Dataset, Shelf, picture

ROOT = Path(__file__).parents[3]


def shelf_of(count: int, **options: int | None) -> Shelf:
    files = {f"cat/{number:03d}": picture(number) for number in range(count)}
    return Shelf({**files, "cat/broken": b"GIF89a", "cat/large": picture(500, 101, 100)}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [1, 8])
def test_what_was_read_before_the_source_failed_is_not_read_again(tmp_path: Path, threads: int) -> None:
    shelf = shelf_of(60, parallel_reads=threads, fail_after=45)
    with pytest.raises(TransientError):
        Dataset(tmp_path / "one").arrive(shelf)
    assert len(shelf.reads) == 45
    shelf.fail_after = None
    batch = Dataset(tmp_path / "another run").arrive(shelf)
    assert (batch.accepted, batch.quarantined.num_rows) == (60, 2)
    assert sorted(shelf.reads) == sorted(shelf.files)
    assert not journal.path(shelf.base).exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.pipeline.ingestion.shelf import Dataset, Shelf
from tests.pipeline.ingestion.test_journal import shelf_of

class Deadly(Shelf):
    def read(self, item):
        if len(self.reads) == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        print(item.key, flush=True)
        return super().read(item)

shelf = Deadly(shelf_of(60).files)
Dataset(Path(sys.argv[1])).arrive(shelf)
"""


def test_a_killed_process_has_lost_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "data"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    shelf = shelf_of(60)
    assert Dataset(tmp_path / "data").arrive(shelf).accepted == 60
    assert sorted([*done.stdout.split(), *shelf.reads]) == sorted(shelf.files)


ITEM = Item("shelf://cat/a", "cat/a", "v1", "cat", 3)
LARGE = Checked(None, reason="too-many-pixels", detail="101 x 100 pixels")


def written(path: Path, *answers: Checked) -> Path:
    with journal.appending(path, LIMITS) as record:
        for answer in answers:
            record(ITEM, answer)
    return path


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    first, second = Checked("0" * 64, ("cmyk",)), Checked("1" * 64)
    path = written(tmp_path / "j", first)
    path.write_bytes(path.read_bytes()[:-9])
    assert journal.read(path, LIMITS) == {}
    assert journal.read(written(path, second), LIMITS) == {("shelf://cat/a", "v1"): second}
    assert journal.read(tmp_path / "none", LIMITS) == {}


@pytest.mark.parametrize(
    ("answer", "limits", "holds"),
    [
        (Checked("0" * 64, ("cmyk",)), Limits(1, 1, 99), True),
        (Checked(None, reason="damaged", detail="cut off"), Limits(1, 1, 99), True),
        (LARGE, Limits(1, LIMITS.max_pixels, LIMITS.min_side), True),
        (LARGE, Limits(1, 20_000, LIMITS.min_side), False),
        (Checked(None, reason="too-small", detail="3 x 3"), Limits(1, LIMITS.max_pixels, 2), False),
        (Checked(None, reason="unreadable-file", detail="permission denied"), LIMITS, False),
    ],
    ids=["image", "of the bytes", "same limits", "other pixels", "other side", "passing"],
)
def test_an_answer_holds_as_long_as_what_it_was_judged_by(
    tmp_path: Path, answer: Checked, limits: Limits, holds: bool
) -> None:
    found = journal.read(written(tmp_path / "j", answer), limits)
    assert found == ({("shelf://cat/a", "v1"): answer} if holds else {})


def test_an_image_that_is_no_longer_in_the_store_is_read_again(tmp_path: Path) -> None:
    shelf = shelf_of(2)
    image_id = store.put(picture(0))
    item = next(shelf.list())
    with journal.appending(journal.path(shelf.base), LIMITS) as record:
        record(item, Checked(image_id))
    store.path(image_id).unlink()
    Dataset(tmp_path).arrive(shelf)
    assert sorted(shelf.reads) == sorted(shelf.files)
    assert store.get(image_id) == picture(0)
