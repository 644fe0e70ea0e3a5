import os
from pathlib import Path

import pytest

from pipeline import files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "sub/a.json"
    files.write_json(target, {"b": 1, "a": 2})
    assert target.read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'
    with pytest.raises(RuntimeError), files.replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert files.read_json(target) == {"a": 2, "b": 1}
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(target, float("nan"))


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for name in ("old", "new"):
        with files.replacing_directory(target) as temporary:
            (temporary / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["new"]
    with pytest.raises(RuntimeError), files.replacing_directory(target) as temporary:
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / ".tmp-folder/x").touch()
    (tmp_path / ".tmp-file").touch()
    (tmp_path / "kept").touch()
    files.clear_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert files.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    before = files.sha256_tree(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").touch()
    assert files.sha256_tree(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert files.sha256_tree(tmp_path) != before


def test_what_others_may_be_writing_is_left_for_a_while(tmp_path: Path) -> None:
    for name, touched in (("old", 1000), ("new", 3000)):
        (tmp_path / f".tmp-{name}").mkdir()
        os.utime(tmp_path / f".tmp-{name}", (touched, touched))
    files.clear_temporaries(tmp_path, before=2000)
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-new"]


def test_a_directory_of_one_content_stays_where_another_was_first(tmp_path: Path) -> None:
    """Its files are open elsewhere by then."""
    target = tmp_path / "out"
    with files.replacing_directory(target, one_content=True) as mine:
        (mine / "a").write_text("1")
        with files.replacing_directory(target, one_content=True) as others:
            (others / "a").write_text("1")
        first = (target / "a").stat().st_ino
    assert (target / "a").stat().st_ino == first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
