from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import files
from pipeline.dataset import manifest, store
from pipeline.errors import DataError
from pipeline.ingestion import history, ingest
from pipeline.ingestion.answers import Limits
from pipeline.sources.source import open_source
from tests.pipeline.ingestion.shelf import NOW, Dataset, File, Shelf, picture


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "data")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({f"{label}/{label}-{number}": picture(hash_) for label, number, hash_ in SIX})


SIX = [(label, number, 10 * start + number) for start, label in enumerate(("cat", "dog")) for number in range(3)]


def tombstones(batch: ingest.Batch) -> dict[str, str]:
    return {row["uri"].rpartition("/")[2]: row["label"] for row in batch.rows.to_pylist() if row["removed"]}


def added(batch: ingest.Batch) -> dict[str, str]:
    return {row["uri"].rpartition("/")[2]: row["label"] for row in batch.rows.to_pylist() if not row["removed"]}


def test_the_second_ingest_reads_only_what_is_new(dataset: Dataset, shelf: Shelf) -> None:
    first = dataset.arrive(shelf)
    assert (first.name, first.listed, first.known, first.accepted) == ("0001", 6, 0, 6)
    assert dataset.arrive(shelf).empty
    shelf.files["cat/new"] = File(picture(7), group="litter")
    second = dataset.arrive(shelf)
    assert (second.name, second.listed, second.known, second.accepted) == ("0002", 7, 6, 1)
    [row] = second.rows.to_pylist()
    assert store.get(row["image_id"]) == picture(7)
    assert (row["label"], row["group"], row["ingested_at"], row["removed"]) == ("cat", "litter", NOW, False)
    assert len(shelf.reads) == 7


def test_everything_in_a_folder_is_accepted_or_quarantined_with_a_reason(
    dataset: Dataset, source: Path, png: Callable[..., bytes]
) -> None:
    cat = source / "cat"
    (cat / "empty.jpg").touch()
    (cat / "page.jpg").write_text("<html>not found</html>")
    (cat / "half.png").write_bytes(png(51)[:-40])
    (cat / "big.png").write_bytes(b"x" * 100_001)
    (cat / "bomb.png").write_bytes(png(52, 101, 100))
    (cat / "spacer.png").write_bytes(png(57, 1, 1))
    (cat / "png-named.jpg").write_bytes(png(53))
    (cat / "na me ü.png").write_bytes(png(54))
    (cat / "link.png").symlink_to("nowhere")
    (cat / "link-to-cat-0.png").symlink_to("cat-0.png")
    os.mkfifo(cat / "pipe.png")
    (cat / ".hidden.png").write_bytes(b"")
    (source / "loose.png").write_bytes(png(55))
    Path(os.fsdecode(os.fsencode(cat) + b"/latin-\xe9.png")).write_bytes(png(56))
    batch = dataset.arrive(open_source(str(source)))
    assert dataset.waiting == {
        "empty.jpg": "empty",
        "page.jpg": "html-page",
        "half.png": "damaged",
        "big.png": "too-many-bytes",
        "bomb.png": "too-many-pixels",
        "spacer.png": "too-small",
        "link.png": "not-a-file",
        "link-to-cat-0.png": "exact-duplicate",
        "pipe.png": "not-a-file",
        "loose.png": "no-label",
    }
    assert {"png-named.jpg", "na me ü.png", "latin-\\xe9.png"} <= set(dataset.labels)
    assert batch.listed == batch.accepted + batch.quarantined.num_rows == 12 + 13
    assert dataset.summary["notes"] == {"wrong-extension": 1}
    assert dataset.arrive(open_source(str(source))).empty


def test_exact_copies_are_kept_once_and_the_copy_takes_the_place_of_a_deleted_one(
    dataset: Dataset, shelf: Shelf
) -> None:
    shelf.files["cat/copy"] = shelf.files["cat/cat-0"]
    dataset.arrive(shelf)
    assert dataset.waiting == {"copy": "exact-duplicate"}
    del shelf.files["cat/cat-0"]
    batch = dataset.arrive(shelf)
    assert (added(batch), tombstones(batch)) == ({"copy": "cat"}, {"cat-0": "cat"})
    assert (dataset.waiting, len(shelf.reads)) == ({}, 7)


def test_a_file_that_was_only_touched_is_no_news_and_read_once(dataset: Dataset, shelf: Shelf) -> None:
    dataset.arrive(shelf)
    shelf.files["cat/cat-1"] = File(picture(1), version="touched")
    for _ in range(2):
        batch = dataset.arrive(shelf)
        assert (batch.empty, batch.known, len(shelf.reads)) == (True, 6, 7)


@pytest.mark.parametrize("late", [False, True], ids=["in one batch", "the second copy a batch later"])
def test_the_same_bytes_in_two_classes_are_a_conflict_for_all_of_them(
    dataset: Dataset, shelf: Shelf, late: bool
) -> None:
    if late:
        dataset.arrive(shelf)
    shelf.files["dog/also"] = shelf.files["cat/cat-0"]
    batch = dataset.arrive(shelf)
    assert dataset.waiting == {"cat-0": "label-conflict", "also": "label-conflict"}
    assert tombstones(batch) == ({"cat-0": "cat"} if late else {})
    assert "cat-0" not in dataset.labels
    del shelf.files["dog/also"]
    assert added(dataset.arrive(shelf)) == {"cat-0": "cat"}
    assert (dataset.waiting, len(shelf.reads)) == ({}, 7)


def test_a_moved_file_is_a_tombstone_and_a_row(dataset: Dataset, shelf: Shelf) -> None:
    dataset.arrive(shelf)
    shelf.files["cat/renamed"] = shelf.files.pop("cat/cat-0")
    shelf.files["dog/was-cat"] = shelf.files.pop("cat/cat-1")
    batch = dataset.arrive(shelf)
    assert added(batch) == {"renamed": "cat", "was-cat": "dog"}
    assert tombstones(batch) == {"cat-0": "cat", "cat-1": "cat"}
    assert (dataset.waiting, Counter(dataset.labels.values())) == ({}, {"cat": 2, "dog": 4})


@pytest.mark.parametrize("change", [{"label": "tiger"}, {"group": "litter"}], ids=["label", "group"])
def test_another_label_or_group_is_a_new_row_unread(dataset: Dataset, shelf: Shelf, change: dict[str, Any]) -> None:
    dataset.arrive(shelf)
    shelf.files["cat/cat-0"] = File(picture(0), **change)
    [row] = dataset.arrive(shelf).rows.to_pylist()
    assert {name: row[name] for name in change} == change
    assert (len(dataset.labels), len(shelf.reads)) == (6, 6)
    shelf.files["cat/cat-0"] = picture(0)
    assert dataset.arrive(shelf).accepted == 1
    assert dataset.labels["cat-0"] == "cat"


def test_a_file_with_new_content_replaces_its_old_image(dataset: Dataset, shelf: Shelf) -> None:
    dataset.arrive(shelf)
    shelf.files["cat/cat-0"] = File(picture(99), version="2")
    batch = dataset.arrive(shelf)
    assert (added(batch), tombstones(batch)) == ({"cat-0": "cat"}, {})
    rows = dataset.history.in_force.to_pylist()
    assert len(rows) == 6
    assert store.get(next(row["image_id"] for row in rows if row["uri"].endswith("cat-0"))) == picture(99)


def test_a_file_whose_content_broke_is_in_force_no_more(dataset: Dataset, shelf: Shelf) -> None:
    dataset.arrive(shelf)
    shelf.files["cat/cat-0"] = File(b"<html>", version="2")
    assert tombstones(dataset.arrive(shelf)) == {"cat-0": "cat"}
    assert set(dataset.waiting) == {"cat-0"}
    shelf.files["cat/cat-0"] = picture(0)  # restored, with the old time stamp
    assert added(dataset.arrive(shelf)) == {"cat-0": "cat"}
    assert len(shelf.reads) == 7


def test_what_is_not_worth_reading_is_not_read(dataset: Dataset, shelf: Shelf) -> None:
    shelf.files["cat/ghost"] = File(b"", problem=("missing-file", "named in labels.csv, line 3"))
    shelf.files["loose"] = picture(50)
    dataset.arrive(shelf)
    assert dataset.waiting == {"ghost": "missing-file", "loose": "no-label"}
    assert len(shelf.reads) == 6


def test_what_a_limit_kept_out_is_read_again_under_another_limit_only(dataset: Dataset, shelf: Shelf) -> None:
    shelf.files |= {"cat/large": picture(50, 101, 100), "cat/small": picture(51, 3, 3), "cat/long": b"x" * 100_001}
    dataset.arrive(shelf)
    assert dataset.waiting == {"large": "too-many-pixels", "small": "too-small", "long": "too-many-bytes"}
    assert dataset.arrive(shelf).empty
    assert len(shelf.reads) == 8
    dataset.limits = Limits(max_bytes=200_000, max_pixels=20_000, min_side=2)
    assert added(dataset.arrive(shelf)) == {"large": "cat", "small": "cat"}
    assert dataset.waiting == {"long": "not-an-image"}
    assert len(shelf.reads) == 11


def test_a_limit_that_still_keeps_out_is_on_record_again(dataset: Dataset, shelf: Shelf) -> None:
    shelf.files["cat/small"] = picture(51, 2, 2)
    dataset.arrive(shelf)
    dataset.limits = replace(dataset.limits, min_side=3)
    for _ in range(2):
        dataset.arrive(shelf)
    assert (dataset.waiting, len(shelf.reads)) == ({"small": "too-small"}, 8)


def test_a_handful_may_go_whatever_their_share(dataset: Dataset, shelf: Shelf) -> None:
    dataset.arrive(shelf)
    dataset.max_removed_share = 0.0
    shelf.files = {"cat/cat-0": picture(0)}
    assert dataset.arrive(shelf).removed == 5


@pytest.mark.parametrize("how", ["deleted", "unreadable"])
def test_a_source_that_lost_most_of_its_images_stops_the_run(dataset: Dataset, how: str) -> None:
    shelf = Shelf({f"cat/{number}": picture(number) for number in range(12)})
    dataset.arrive(shelf)
    dataset.max_removed_share = 0.5
    before = dataset.content()
    for number in range(7):
        if how == "deleted":
            del shelf.files[f"cat/{number}"]
        else:
            shelf.files[f"cat/{number}"] = File(b"<html>", version="2")
    with pytest.raises(DataError, match=r"at most 50% of the 12 .* found 7 .*max_removed_share=1"):
        dataset.arrive(shelf)
    assert dataset.content() == before
    dataset.max_removed_share = 1.0
    assert dataset.arrive(shelf).removed == 7


def test_renaming_every_folder_and_replacing_every_file_is_no_loss(dataset: Dataset) -> None:
    shelf = Shelf({f"cat/{number}": picture(number) for number in range(8)})
    dataset.arrive(shelf)
    dataset.max_removed_share = 0.0
    shelf.files = {f"tiger/{number}": picture(number) for number in range(8)}
    assert (dataset.arrive(shelf).removed, len(dataset.labels)) == (8, 8)
    shelf.files = {f"tiger/{number}": File(picture(100 + number), version="2") for number in range(8)}
    assert (dataset.arrive(shelf).removed, len(dataset.labels)) == (0, 8)


def test_an_empty_source_and_a_name_that_comes_twice_say_what_to_do(dataset: Dataset, shelf: Shelf) -> None:
    with pytest.raises(DataError, match="empty source"):
        dataset.arrive(Shelf({}))
    shelf.list = lambda: [item for item in Shelf.list(shelf) for _ in range(2)]  # type: ignore[method-assign,assignment]
    with pytest.raises(DataError, match="6 names more than once"):
        dataset.arrive(shelf)


def test_another_source_adds_its_images(dataset: Dataset, shelf: Shelf) -> None:
    dataset.arrive(shelf)
    other = Shelf(
        {"cat/mine": picture(60), "cat/copy": picture(0), "dog/contested": picture(1), "dog/bad": b"?"}, base="other://"
    )
    batch = dataset.arrive(other)
    assert (added(batch), tombstones(batch)) == ({"mine": "cat"}, {"cat-1": "cat"})
    assert dataset.waiting == {
        "copy": "exact-duplicate",
        "contested": "label-conflict",
        "cat-1": "label-conflict",
        "bad": "not-an-image",
    }
    assert batch.listed == 10
    del other.files["dog/contested"]
    assert added(dataset.arrive(other)) == {"cat-1": "cat"}
    assert dataset.arrive(other).empty
    batch = dataset.arrive(shelf)
    assert (batch.empty, len(dataset.labels), len(shelf.reads), len(other.reads)) == (True, 7, 6, 4)


def test_threads_and_worker_processes_find_the_same(tmp_path: Path, source: Path, png: Callable[..., bytes]) -> None:
    for number in range(100):
        (source / "cat" / f"many-{number}.png").write_bytes(png(1000 + number))
    alone = Dataset(tmp_path / "one").arrive(open_source(str(source)))
    together = Dataset(tmp_path / "two").arrive(open_source(str(source)), processes=2)
    assert together.rows.equals(alone.rows)
    shelf = Shelf({f"cat/{number}": picture(number) for number in range(70)}, parallel_reads=8)
    assert Dataset(tmp_path / "three").arrive(shelf).accepted == 70
    assert sorted(shelf.reads) == sorted(shelf.files)


def eventful(shelf: Shelf) -> None:
    """An image comes, one goes, one is relabelled, a conflict and a copy arise, a file breaks."""
    shelf.files["cat/new"] = picture(80)
    del shelf.files["cat/cat-0"]
    shelf.files["cat/cat-1"] = File(picture(1), label="tiger")
    shelf.files["cat/dog-0"] = shelf.files["dog/dog-0"]
    shelf.files["dog/copy"] = shelf.files["dog/dog-1"]
    shelf.files["dog/dog-2"] = File(b"broken", version="2")


@pytest.mark.parametrize("base", ["shelf://", "other://"], ids=["of this source", "of another source"])
@pytest.mark.parametrize("written", range(4))
def test_a_kill_between_any_two_writes_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shelf: Shelf, written: int, base: str
) -> None:
    whole, cut = Dataset(tmp_path / "whole"), Dataset(tmp_path / "cut")
    for each in (whole, cut):
        each.arrive(shelf)
    eventful(shelf)
    shelf.base = base
    whole.arrive(shelf)

    real, count = files.write_table, iter(range(written))

    def write_table(target: Path, table: pa.Table) -> None:
        if next(count, None) is None:
            (target.parent / ".tmp-half").write_bytes(b"PAR1")
            raise KeyboardInterrupt
        real(target, table)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_table", write_table)
        if written < 3:
            with pytest.raises(KeyboardInterrupt):
                cut.arrive(shelf)
        else:
            cut.arrive(shelf)
    assert cut.arrive(shelf).empty == (written >= 2)
    assert cut.content() == whole.content()


def test_summary_counts_are_conserved(dataset: Dataset, shelf: Shelf) -> None:
    dataset.arrive(shelf)
    eventful(shelf)
    dataset.arrive(shelf)
    summary = dataset.summary
    assert summary == {
        "images": 4,
        "classes": {"cat": 2, "dog": 1, "tiger": 1},
        "quarantined": {"exact-duplicate": 1, "label-conflict": 2, "not-an-image": 1},
        "notes": {},
        "batches": [
            {"batch": "0001", "listed": 6, "known": 0, "accepted": 6, "removed": 0, "quarantined": {}, "notes": {}},
            {
                "batch": "0002",
                "listed": 8,
                "known": 2,
                "accepted": 2,
                "removed": 3,
                "quarantined": {"exact-duplicate": 1, "label-conflict": 2, "not-an-image": 1},
                "notes": {},
            },
        ],
    }


def test_a_batch_may_be_tombstones_only(dataset: Dataset, shelf: Shelf) -> None:
    dataset.arrive(shelf)
    del shelf.files["cat/cat-0"]
    dataset.arrive(shelf)
    assert [path.name for path in manifest.batch_files(dataset.manifest)] == ["0001.parquet", "0002.parquet"]
    assert manifest.images(manifest.read_batches(dataset.manifest)["0002"]).num_rows == 0
    assert (dataset.summary["batches"][-1]["removed"], len(dataset.labels)) == (1, 5)


CONTENTS = {"a": picture(200), "b": picture(201), "c": picture(202), "broken": b"broken"}
STATE = st.dictionaries(
    st.sampled_from(["1", "2", "3", "4"]),
    st.tuples(st.sampled_from(sorted(CONTENTS)), st.sampled_from(["cat", "dog"]), st.booleans()),
    min_size=1,
)


def on_shelf(state: dict[str, tuple[str, str, bool]]) -> dict[str, File | bytes]:
    return {
        f"x/{name}": File(CONTENTS[content], version=f"{content}{touched}", label=label)
        for name, (content, label, touched) in state.items()
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(STATE, min_size=1, max_size=5))
def test_only_the_final_state_of_a_source_counts(monkeypatch: pytest.MonkeyPatch, states: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        monkeypatch.setenv("REFIT_HOME", str(root / "home"))
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a third of the time, and no power is cut here
        step_by_step, at_once, shelf = Dataset(root / "steps"), Dataset(root / "once"), Shelf({})
        before: dict[str, Any] = {}
        for state in states:
            shelf.files = on_shelf(state)
            shelf.reads.clear()
            batch = step_by_step.arrive(shelf)
            assert batch.listed == len(state) == len(step_by_step.labels) + len(step_by_step.waiting)
            assert step_by_step.arrive(shelf).empty
            changed = {name for name, found in state.items() if (before.get(name) or ("", "", ""))[::2] != found[::2]}
            assert len(shelf.reads) == len(set(shelf.reads)) <= len(changed)
            before = state
        at_once.arrive(Shelf(on_shelf(states[-1])))
        assert images_of(step_by_step) == images_of(at_once)
        assert Counter(step_by_step.waiting.values()) == Counter(at_once.waiting.values())
        conflicts = [{n for n, r in each.waiting.items() if r == "label-conflict"} for each in (step_by_step, at_once)]
        assert conflicts[0] == conflicts[1]


def images_of(dataset: Dataset) -> set[tuple[str, str]]:
    return {(row["image_id"], row["label"]) for row in dataset.history.in_force.to_pylist()}


def test_batches_beyond_9999_keep_their_order(tmp_path: Path) -> None:
    for name in ("10000", "9999", "0002"):
        (tmp_path / f"{name}.parquet").touch()
    (tmp_path / history.CURRENT).touch()
    assert [path.stem for path in manifest.batch_files(tmp_path)] == ["0002", "9999", "10000"]
    assert manifest.next_batch(["0002", "10000", "9999"]) == "10001"


def test_linked_folders_are_followed_but_not_in_circles(
    dataset: Dataset, source: Path, tmp_path: Path, png: Callable[..., bytes]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/bird.png").write_bytes(png(500))
    (source / "bird").symlink_to(tmp_path / "elsewhere")
    (source / "cat/up").symlink_to(source)
    (source / "cat/loop.png").symlink_to(source / "cat/loop.png")
    dataset.arrive(open_source(str(source)))
    assert dataset.waiting == {"loop.png": "not-a-file"}
    assert dataset.labels["bird.png"] == "bird"
    shutil.move(source / "cat/cat-0.png", source / "dog/cat-0.png")
    dataset.arrive(open_source(str(source)))
    assert dataset.labels["cat-0.png"] == "dog"
    assert len(dataset.labels) == 13


def test_attributes_are_those_that_the_labels_file_has_today(
    dataset: Dataset, source: Path, png: Callable[..., bytes]
) -> None:
    names = [f"cat/cat-{number}.png" for number in range(3)]
    (source / names[2]).write_bytes(b"no image")
    labels = source / "labels.csv"
    labels.write_text("path,label,camera,day\n" + "".join(f"{name},cat,left,\n" for name in names))
    first = dataset.arrive(open_source(str(source)))
    assert first.attributes.column_names == ["image_id", "camera"]
    ids = {name: store.put((source / name).read_bytes()) for name in names[:2]}
    assert first.attributes.to_pylist() == [{"image_id": each, "camera": "left"} for each in sorted(ids.values())]

    labels.write_text(f"path,label,camera,day\n{names[0]},cat,right,\n{names[1]},cat,,monday\n")
    second = dataset.arrive(open_source(str(source)))
    assert second.empty or second.accepted == 0  # nothing about the images themselves is new
    assert {row.pop("image_id"): row for row in second.attributes.to_pylist()} == {
        ids[names[0]]: {"camera": "right", "day": None},
        ids[names[1]]: {"camera": None, "day": "monday"},
    }


def test_without_a_labels_file_there_are_no_attributes(dataset: Dataset, shelf: Shelf) -> None:
    found = dataset.arrive(shelf).attributes
    assert (found.column_names, found.num_rows) == (["image_id"], 0)
