from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError, SettingsError, TransientError
from pipeline.sources import labels as labels_file
from pipeline.sources.source import Item, open_source


def listing(root: Path, labels: str | None = None) -> dict[str, Item]:
    """Path in the source to item."""
    return {item.uri.removeprefix(f"{root}/"): item for item in open_source(str(root), labels=labels).list()}


def problems(items: dict[str, Item]) -> dict[str, str | None]:
    return {path: item.problem and item.problem[0] for path, item in items.items()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "x").mkdir(parents=True)
    for name in ("a.png", "b.png", "x/c.png", "notes.txt"):
        (root / name).write_bytes(name.encode())
    return root


def test_folders_are_labels(tmp_path: Path) -> None:
    for name in (
        "cat/a.png",
        "deep/er/b.png",
        " na me /c.png",
        "cafe\u0301/d.png",
        ".git/e.png",
        "cat/.f.png",
        "g.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"123")
    (tmp_path / "cat/..h.png").write_bytes(b"")
    items = listing(tmp_path)
    assert {path: item.label for path, item in items.items()} == {
        "cat/a.png": "cat",
        "deep/er/b.png": "er",
        " na me /c.png": "na me",
        "cafe\u0301/d.png": "caf\u00e9",
        "g.png": None,
    }
    assert items["g.png"].problem == ("no-label", "lies in no class folder")
    assert items["cat/a.png"].problem is None
    assert items["cat/a.png"].bytes == 3
    assert items["cat/a.png"].version == f"3-{(tmp_path / 'cat/a.png').stat().st_mtime_ns}"


def test_a_folder_name_of_spaces_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "  ").mkdir()
    (tmp_path / "  /a.png").touch()
    assert problems(listing(tmp_path)) == {"  /a.png": "no-label"}


def test_names_that_are_no_text_are_shown_escaped_and_read(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102 - bytes
    Path(os.fsdecode(folder + b"/\xff.png")).write_bytes(b"x")
    source = open_source(str(tmp_path))
    [item] = source.list()
    assert (item.uri, item.label) == (f"{tmp_path}/caf\\xe9/\\xff.png", "caf\\xe9")
    assert source.read(item) == b"x"


def test_what_is_no_file_is_listed_with_its_problem(photos: Path) -> None:
    os.mkfifo(photos / "x/pipe.png")
    (photos / "x/broken.png").symlink_to("nowhere")
    (photos / "x/linked.png").symlink_to("c.png")
    (photos / "x/circle").symlink_to(photos)
    found = problems(listing(photos))
    assert found["x/pipe.png"] == found["x/broken.png"] == "not-a-file"
    assert found["x/linked.png"] is found["x/c.png"] is None
    assert len(found) == 4 + 3


@pytest.mark.parametrize(("name", "taken"), [("Labels.CSV", True), ("labels.tsv", False), ("labels.csv.gz", False)])
def test_a_labels_file_by_another_name_is_taken_or_refused(photos: Path, name: str, taken: bool) -> None:
    (photos / name).write_text("path,label\na.png,cat\n")
    if taken:
        assert {item.label for item in open_source(str(photos)).list()} == {"cat", None}
    else:
        with pytest.raises(DataError, match=re.escape(f"labels.parquet, found {photos / name}")):
            list(open_source(str(photos)).list())


def test_a_link_to_a_class_folder_lists_its_images_again_and_hides_none(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog/a.png").touch()
    (tmp_path / "alias").symlink_to("dog")
    (tmp_path / "dog/up").symlink_to(tmp_path)
    found = [(item.uri.removeprefix(f"{tmp_path}/"), item.label) for item in open_source(str(tmp_path)).list()]
    assert found == [("alias/a.png", "alias"), ("dog/a.png", "dog")]


def test_bytes_of_another_version_are_never_taken(photos: Path) -> None:
    source = open_source(str(photos))
    items = {item.uri: item for item in source.list()}
    item = items[str(photos / "a.png")]
    (photos / "a.png").write_bytes(b"still being written")
    with pytest.raises(OSError, match="changed after it was listed"):
        source.read(item)


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (PermissionError(errno.EACCES, "denied", "x"), PermissionError),
        (FileNotFoundError(errno.ENOENT, "gone", "x"), TransientError),
    ],
    ids=["not-allowed", "gone"],
)
def test_a_folder_that_cannot_be_listed_is_no_empty_folder(
    photos: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, seen: type[Exception]
) -> None:
    real = os.scandir  # root, who runs tests in containers, may list any folder

    def scandir(path: str) -> Any:
        if Path(path).name == "x":
            raise error
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(seen):
        listing(photos)


@pytest.mark.parametrize("uri", ["ftp://host/images", "s3://", "s3:///prefix", "", None])
def test_other_places_are_refused(uri: str | None) -> None:
    with pytest.raises(SettingsError, match=r"expected a directory or s3://bucket/prefix"):
        open_source(uri)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone, found nothing"):
        listing(tmp_path / "gone")


def test_a_labels_file_alone_decides(photos: Path) -> None:
    (photos / "x/pipe.png").symlink_to("nowhere")
    (photos / "labels.csv").write_text(
        "path,label,group\na.png,cat,p1\nx/c.png,dog,\nx/c.png,dog,\nb.png,cat,\nb.png,dog,\nx/pipe.png,cat,\n"
        "gone.png,cat,\n../up.png,cat,\n/etc/passwd,cat,\nx//c.png,cat,\n"
    )
    items = listing(photos)
    assert {path: (item.label, item.group) for path, item in items.items() if item.problem is None} == {
        "a.png": ("cat", "p1"),
        "x/c.png": ("dog", None),
    }
    assert problems(items) == {
        "a.png": None,
        "x/c.png": None,
        "b.png": "label-conflict",
        "x/pipe.png": "not-a-file",
        "notes.txt": "no-label",
        "gone.png": "missing-file",
        "../up.png": "unsafe-name",
        "/etc/passwd": "unsafe-name",
        "x//c.png": "unsafe-name",
    }
    assert items["b.png"].problem == ("label-conflict", "labels.csv says both cat and dog")
    assert items["notes.txt"].problem == ("no-label", "not in labels.csv")
    gone = items["gone.png"]
    assert (gone.version, gone.bytes, gone.label) == ("0-0", 0, "cat")


def test_further_columns_come_with_the_item_and_make_no_other_of_it(photos: Path) -> None:
    (photos / "labels.csv").write_text("path,label,camera\na.png,cat,left\nb.png,cat,\n")
    left = listing(photos)["a.png"]
    assert left.attributes == (("camera", "left"),)
    assert listing(photos)["b.png"].attributes == ()
    (photos / "labels.csv").write_text("path,label,camera\na.png,cat,right\nb.png,cat,\n")
    right = listing(photos)["a.png"]
    assert right.attributes == (("camera", "right"),)
    assert right == left


def test_one_image_in_two_groups_is_a_conflict(photos: Path) -> None:
    (photos / "labels.csv").write_text("path,label,group\na.png,cat,p1\na.png,cat,p2\n")
    problem = listing(photos)["a.png"].problem
    assert problem == ("label-conflict", "labels.csv says both cat (group p1) and cat (group p2)")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_match_however_their_accents_are_written(photos: Path, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (photos / unicodedata.normalize(form, "é ü.png")).write_bytes(b"x")  # type: ignore[arg-type]
    (photos / "labels.csv").write_text("path,label\n" + unicodedata.normalize(other, "é ü.png,cat"))  # type: ignore[arg-type]
    assert sorted(item.label for item in listing(photos).values() if not item.problem) == ["cat"]


@pytest.mark.parametrize(
    "place", [lambda root: root / "x/mine.jsonl", lambda root: root.parent / "mine.jsonl"], ids=["inside", "beside"]
)
def test_a_labels_file_may_be_named(photos: Path, place: Callable[[Path], Path]) -> None:
    place(photos).write_text('{"path": "a.png", "label": "cat"}')
    found = problems(listing(photos, str(place(photos))))
    assert found == {"a.png": None, "b.png": "no-label", "x/c.png": "no-label", "notes.txt": "no-label"}


def test_one_labels_file_is_enough(photos: Path) -> None:
    (photos / "labels.csv").write_text("path,label\na.png,cat\n")
    (photos / "labels.jsonl").write_text('{"path": "a.png", "label": "dog"}')
    with pytest.raises(DataError, match=r"labels\.csv and .*labels\.jsonl.*ingest\.labels"):
        listing(photos)
    found = listing(photos, str(photos / "labels.jsonl"))
    assert found["a.png"].label == "dog"
    assert found["labels.csv"].problem == ("no-label", "not in labels.jsonl")


def test_paths_that_all_lead_nowhere_are_one_mistake(photos: Path) -> None:
    (photos / "labels.csv").write_text("path,label\nphotos/a.png,cat\nphotos/b.png,dog\n")
    with pytest.raises(DataError, match=r"names 2 files, such as 'photos/a\.png', and none of them is in"):
        listing(photos)


def test_labels_that_cannot_be_had_are_named(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"ingest\.labels: expected a file named \.csv"):
        listing(photos, "labels.xlsx")
    with pytest.raises(DataError, match=r"Expected a labels file at .*/none\.csv"):
        listing(photos, str(photos / "none.csv"))
    os.mkfifo(photos / "labels.csv")
    with pytest.raises(DataError, match=r"labels\.csv cannot be read: .*a pipe"):
        listing(photos)
    (photos / "labels.csv").unlink()
    (photos / "labels.csv").write_text("path,label\na.png,cat\n")
    monkeypatch.setattr(labels_file, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="21 bytes, more than 10"):
        listing(photos)
