"""What a person has decided about a file in quarantine."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.ingestion import releases
from pipeline.ingestion.releases import Release
from tests.pipeline.ingestion.shelf import Dataset, File, Shelf, picture


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "data")


def release(name: str, listed: str | None, label: str, at: str = "2026-01-02T00:00:00+00:00") -> Release:
    return Release(f"shelf://{name}", "1", listed, label, "someone", at, "looked at it")


def contested() -> Shelf:
    """One image in three files and two classes."""
    return Shelf({name: picture(1) for name in ("cat/a", "cat/copy", "dog/b")})


def test_a_conflict_is_settled_by_a_release(dataset: Dataset) -> None:
    shelf = contested()
    dataset.arrive(shelf)
    dataset.releases = [release("dog/b", "dog", "dog")]
    batch = dataset.arrive(shelf)
    [row] = batch.rows.to_pylist()
    assert (row["uri"], row["label"], row["notes"]) == ("shelf://dog/b", "dog", ["released"])
    assert dataset.waiting == {"a": "label-conflict", "copy": "label-conflict"}
    assert set(dataset.history.waiting["detail"].to_pylist()) == {"decided: shelf://dog/b was released as dog"}
    assert batch.quarantined.num_rows == 0
    assert dataset.arrive(shelf).empty
    assert len(shelf.reads) == 3


def test_a_release_outlives_a_touch_of_its_file_but_not_other_content(dataset: Dataset) -> None:
    shelf = contested()
    dataset.arrive(shelf)
    image_id = hashlib.sha256(picture(1)).hexdigest()
    dataset.releases = [replace(release("dog/b", "dog", "dog"), image_id=image_id)]
    dataset.arrive(shelf)
    shelf.files["dog/b"] = File(picture(1), version="2")
    assert dataset.arrive(shelf).empty
    assert dataset.labels == {"b": "dog"}
    shelf.files["dog/b"] = File(picture(2), version="3")
    dataset.arrive(shelf)
    assert dataset.labels == {"a": "cat", "b": "dog"}
    assert "released" not in dataset.summary["notes"]


def test_the_other_copies_of_the_label_are_duplicates_and_the_label_may_be_a_new_one(dataset: Dataset) -> None:
    shelf = contested()
    dataset.releases = [release("cat/copy", "cat", "cat")]
    dataset.arrive(shelf)
    assert (dataset.labels, dataset.waiting) == ({"copy": "cat"}, {"a": "exact-duplicate", "b": "label-conflict"})
    dataset.releases = [release("dog/b", "dog", "lynx")]
    dataset.arrive(shelf)
    assert dataset.labels == {"b": "lynx"}


def test_of_two_releases_the_later_counts(dataset: Dataset) -> None:
    dataset.releases = [
        release("cat/a", "cat", "cat", at="2026-01-02"),
        release("dog/b", "dog", "dog", at="2026-01-03"),
    ]
    dataset.arrive(contested())
    assert dataset.labels == {"b": "dog"}
    [row] = [row for row in dataset.history.waiting.to_pylist() if row["uri"].endswith("cat/a")]
    assert row["label"] == "cat"
    dataset.releases.append(release("dog/b", "dog", "lynx", at="2026-01-04"))
    dataset.arrive(contested())
    assert dataset.labels == {"b": "lynx"}


def test_a_file_without_a_label_is_read_when_it_is_released(dataset: Dataset) -> None:
    shelf = Shelf({"cat/a": picture(1), "loose": picture(2), "page": b"<html>"})
    dataset.arrive(shelf)
    dataset.releases = [release("loose", None, "dog"), release("page", None, "dog")]
    dataset.arrive(shelf)
    assert dataset.labels == {"a": "cat", "loose": "dog"}
    assert list(dataset.waiting) == ["page"]
    assert dataset.waiting["page"] != "no-label"
    assert dataset.summary["notes"] == {"released": 1}
    shelf.files["loose"] = File(picture(2), group="found later")
    [row] = dataset.arrive(shelf).rows.to_pylist()
    assert (row["group"], row["label"], row["notes"]) == ("found later", "dog", ["released"])
    assert sorted(shelf.reads) == ["cat/a", "loose", "page"]


@pytest.mark.parametrize(
    "changed",
    [
        File(picture(9), version="2"),
        File(picture(1), label="tiger"),
        File(b"", problem=("unsafe-name", "holds ..")),
        None,
    ],
    ids=["another version", "relabelled since", "another problem", "nothing changed"],
)
def test_a_release_holds_for_what_was_looked_at(dataset: Dataset, changed: File | None) -> None:
    dataset.releases = [release("dog/b", "dog", "lynx")]
    shelf = Shelf({"cat/other": picture(5), "dog/b": picture(1) if changed is None else changed})
    dataset.arrive(shelf)
    assert ("lynx" in dataset.labels.values()) == (changed is None)


def test_a_release_outlasts_the_ingest_of_another_source(dataset: Dataset) -> None:
    shelf = contested()
    dataset.releases = [release("dog/b", "dog", "lynx")]
    dataset.arrive(shelf)
    dataset.arrive(Shelf({"cat/x": picture(7)}, base="other://"))
    assert dataset.labels == {"b": "lynx", "x": "cat"}
    assert dataset.arrive(shelf).empty


def test_releases_are_kept_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    path = tmp_path / "ingest/pets.releases.jsonl"
    first = release("cat/ä\n", None, "cat")
    second = replace(first, label="dog")
    assert releases.read(path) == []
    for each in (first, second):
        releases.append(path, each)
    assert releases.read(path) == [first, second]
    with path.open("a") as stream:
        stream.write('{"uri": "x"}\n')
    with pytest.raises(DataError, match="line 3"):
        releases.read(path)
