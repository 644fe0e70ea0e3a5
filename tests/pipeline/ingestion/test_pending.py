"""`pending` against ingest itself: what one would do, the other must announce, and nothing that was done."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.ingestion import journal
from pipeline.ingestion.pending import Pending, pending
from pipeline.ingestion.releases import Release
from tests.pipeline.ingestion.shelf import Dataset, File, Shelf, picture


def left(dataset: Dataset, shelf: Shelf) -> Pending:
    touched = journal.read(journal.path(shelf.base), dataset.limits)
    return pending(shelf, dataset.history, released=dataset.releases, touched=touched)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "data")


def test_new_changed_relabelled_and_gone_files_are_pending(dataset: Dataset) -> None:
    shelf = Shelf({f"cat/{name}": picture(ord(name)) for name in "abcd"})
    assert left(dataset, shelf) == Pending(4, tuple(f"shelf://cat/{name}" for name in "abcd"), ())
    dataset.arrive(shelf)
    assert left(dataset, shelf).empty
    shelf.files["cat/a"] = File(picture(1), version="2")
    shelf.files["cat/b"] = File(picture(ord("b")), label="lynx")
    shelf.files["dog/e"] = picture(5)
    del shelf.files["cat/c"]
    assert left(dataset, shelf) == Pending(4, ("shelf://cat/a", "shelf://cat/b", "shelf://dog/e"), ("shelf://cat/c",))
    assert not shelf.reads[4:], "only ingest reads files"


def test_what_is_in_quarantine_or_only_touched_is_not_pending(dataset: Dataset) -> None:
    shelf = Shelf({"cat/a": picture(1), "cat/b": picture(2), "cat/broken": b"no image", "loose": picture(3)})
    dataset.arrive(shelf)
    assert dataset.waiting.keys() == {"broken", "loose"}
    shelf.files["cat/a"] = File(picture(1), version="2")
    assert left(dataset, shelf).new == ("shelf://cat/a",), "its bytes are not known before they are read"
    dataset.arrive(shelf)
    assert left(dataset, shelf).empty
    shelf.files["cat/broken"] = File(picture(4), version="2")
    assert left(dataset, shelf).new == ("shelf://cat/broken",)


def test_a_file_that_people_labelled_is_not_pending_for_ever(dataset: Dataset) -> None:
    shelf = Shelf({"cat/a": picture(1), "loose": picture(3)})
    dataset.releases = [Release("shelf://loose", "1", None, "dog", "me", "2026-01-02T00:00:00+00:00", "seen")]
    dataset.arrive(shelf)
    assert dataset.labels == {"a": "cat", "loose": "dog"}
    assert left(dataset, shelf).empty


def test_images_of_another_source_are_not_gone(dataset: Dataset) -> None:
    dataset.arrive(Shelf({"cat/a": picture(1)}, base="elsewhere://"))
    shelf = Shelf({"cat/b": picture(2)})
    dataset.arrive(shelf)
    assert left(dataset, shelf).empty


CONTENTS = [picture(1), picture(2), picture(3), b"broken", b""]
FILES = st.tuples(st.integers(0, len(CONTENTS) - 1), st.sampled_from(["1", "2"]), st.sampled_from([None, "g"]))
SHELVES = st.dictionaries(st.sampled_from(["cat/a", "cat/b", "dog/a", "dog/c", "loose"]), FILES, min_size=1)
State = dict[str, tuple[int, str, str | None]]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(SHELVES, min_size=1, max_size=4))
def test_nothing_is_lost_and_nothing_is_announced_twice(
    refit_home: Path, monkeypatch: pytest.MonkeyPatch, states: list[State]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("REFIT_HOME", f"{folder}/home")
        dataset = Dataset(Path(folder) / "data")
        known: dict[tuple[str, str], bytes] = {}
        for state in states:
            # One version of a file has one content, as with the size and time of a real one.
            files: dict[str, File | bytes] = {
                name: File(known.setdefault((name, version), CONTENTS[content]), version, group)
                for name, (content, version, group) in state.items()
            }
            shelf = Shelf(files)
            announced = not left(dataset, shelf).empty
            batch = dataset.arrive(shelf)
            assert announced or batch.empty
            assert left(dataset, shelf).empty
