from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from pipeline import files
from pipeline.dataset import shard_index, shards, store
from pipeline.dataset.encoding import Encoded
from pipeline.dataset.shard_index import Index
from pipeline.dataset.shards import Layout, Row
from pipeline.errors import DataError
from pipeline.settings import code_root

CLASSES = ["cat", "dog"]
LAYOUT = Layout(target_bytes=10**6, files=None, max_side=None, quality=90, compression="none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def row(data: bytes, number: int, split: str = "train", copy: int = 0) -> Row:
    return Row(store.put(data), number % 2, CLASSES[number % 2], f"g{number}", split, (), len(data), copy)


@pytest.fixture
def rows(png: Callable[..., bytes]) -> list[Row]:
    return [row(png(number), number, "train" if number < 8 else "test") for number in range(10)]


def write(folder: Path, batches: dict[str, list[Row]], layout: Layout = LAYOUT, **options: Any) -> Index:
    return shards.write(folder, batches, CLASSES, layout, **({"threads": 2} | options))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.*")
    }


def examples(folder: Path, index: Index, **wanted: Any) -> list[Any]:
    paths = [
        str(folder / entry.path)
        for entry in index.files
        if all(getattr(entry, name) == value for name, value in wanted.items())
    ]
    return [
        tf.train.Example.FromString(serialized.numpy()).features.feature
        for serialized in tf.data.TFRecordDataset(paths, index.compression)
    ]


def image_id(feature: Any) -> str:
    return str(feature["image/id"].bytes_list.value[0].decode())


def test_plain_tensorflow_reads_the_documented_keys(folder: Path, rows: list[Row], png: Callable[..., bytes]) -> None:
    index = write(folder, {"0001": rows})

    assert [entry.path for entry in index.files] == [
        "test/test-0001-00000-of-00001.tfrecord",
        "train/train-0001-00000-of-00001.tfrecord",
    ]
    found = {image_id(feature): feature for feature in examples(folder, index)}
    assert set(found) == {row.image_id for row in rows}
    feature = found[rows[3].image_id]
    assert feature["image/encoded"].bytes_list.value == [png(3)]
    assert feature["image/format"].bytes_list.value == [b"png"]
    assert (feature["image/height"].int64_list.value, feature["image/width"].int64_list.value) == ([10], [12])
    assert feature["image/class/label"].int64_list.value == [1]
    assert feature["image/class/text"].bytes_list.value == [b"dog"]
    assert feature["image/group"].bytes_list.value == [b"g3"]
    assert feature["image/augmented"].int64_list.value == [0]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_bytes_depend_neither_on_the_order_of_rows_nor_on_the_number_of_threads(
    folder: Path, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, compression: Any
) -> None:
    monkeypatch.setattr(shards, "CHUNK_BYTES", 1000)  # three images
    many = [row(png(number), number) for number in range(30)]
    layout = replace(LAYOUT, target_bytes=5000, compression=compression)

    for name, its_rows, threads in (("one", many, 1), ("two", many[::-1], 2), ("many", many, 7)):
        write(folder / name, {"0001": its_rows}, layout, threads=threads)

    assert digests(folder / "one") == digests(folder / "two") == digests(folder / "many")


def test_only_batches_that_changed_are_rewritten(folder: Path, rows: list[Row]) -> None:
    write(folder, {"0001": rows[:8]})
    [old] = folder.glob("train/*0001*")
    stamp = old.stat().st_ino
    index = write(folder, {"0001": rows[:8], "0002": rows[8:]})
    assert old.stat().st_ino == stamp
    assert {entry.batch for entry in index.files} == {"0001", "0002"}
    write(folder, {"0001": [*rows[:7], replace(rows[7], label=0, text="cat")]})
    assert old.stat().st_ino != stamp
    assert not list(folder.glob("*/*0002*"))


def test_large_batches_are_cut_into_files_of_about_the_target_size(folder: Path, png: Callable[..., bytes]) -> None:
    many = [row(png(number), number) for number in range(200)]
    total = sum(row.bytes for row in many)

    index = write(folder, {"0001": many}, replace(LAYOUT, target_bytes=total // 4))

    assert [Path(entry.path).name for entry in index.files] == [
        f"train-0001-0000{number}-of-00004.tfrecord" for number in range(4)
    ]
    assert sum(entry.examples for entry in index.files) == 200
    assert all(30 <= entry.examples <= 70 for entry in index.files)
    for entry in index.files:
        ids = [image_id(feature) for feature in examples(folder, index, path=entry.path)]
        assert ids == sorted(ids)  # digests: a random order that can be repeated


def test_a_number_of_files_can_be_asked_for(folder: Path, rows: list[Row]) -> None:
    index = write(folder, {"0001": rows}, replace(LAYOUT, files=3))

    assert [entry.split for entry in index.files] == ["test"] * 3 + ["train"] * 3
    assert len(examples(folder, index)) == 10


def test_gzip_files_say_so_and_hold_the_same(folder: Path, rows: list[Row]) -> None:
    plain, zipped = (
        write(folder / name, {"0001": rows}, replace(LAYOUT, compression=name)) for name in ("none", "gzip")
    )

    assert all(entry.path.endswith(".tfrecord.gz") for entry in zipped.files)
    assert (plain.compression, zipped.compression) == ("", "GZIP")
    for one, other in zip(plain.files, zipped.files, strict=True):
        assert gzip.decompress((folder / "gzip" / other.path).read_bytes()) == (folder / "none" / one.path).read_bytes()


def altered(image: Encoded, row: Row) -> Encoded:
    return replace(image, data=f"copy {row.copy} of {row.image_id}".encode())


def test_augmented_copies_lie_apart_and_are_marked(folder: Path, rows: list[Row]) -> None:
    copies = [replace(rows[0], copy=number) for number in (1, 2)]

    index = write(folder, {"0001": [*rows, *copies]}, alter=altered)

    assert [(entry.path, entry.augmented) for entry in index.files] == [
        ("test/test-0001-00000-of-00001.tfrecord", False),
        ("train/train-0001-00000-of-00001.tfrecord", False),
        ("train/train-0001-augmented-00000-of-00001.tfrecord", True),
    ]
    found = examples(folder, index, augmented=True)
    assert [feature["image/augmented"].int64_list.value[0] for feature in found] == [1, 2]
    assert found[1]["image/encoded"].bytes_list.value == [f"copy 2 of {rows[0].image_id}".encode()]
    assert {entry.batch for entry in index.files} == {"0001"}


def test_other_copies_do_not_rewrite_the_images(folder: Path, rows: list[Row]) -> None:
    def stamps() -> list[int]:
        return [path.stat().st_ino for path in sorted(folder.glob("train/*"))]

    copy = replace(rows[0], copy=1)
    write(folder, {"0001": [*rows, copy]}, alter=altered, recipe="a")
    before = stamps()
    write(folder, {"0001": [*rows, copy]}, alter=altered, recipe="a")
    assert stamps() == before
    write(folder, {"0001": [*rows, copy]}, alter=altered, recipe="b")
    assert stamps()[0] == before[0]
    assert stamps()[1] != before[1]
    write(folder, {"0001": rows}, recipe="b")
    assert stamps() == before[:1]


def damage(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda path: path.unlink(), "found nothing"),
        (lambda path: path.write_bytes(b"short"), "found 5 bytes instead of"),
        (lambda path: damage(path, 0), "the CRC-32C"),
        (lambda path: damage(path, path.stat().st_size // 2), "the CRC-32C"),
        (lambda path: damage(path, -1), "the CRC-32C"),
    ],
    ids=["gone", "cut", "first bit flipped", "bit flipped within", "last bit flipped"],
)
def test_a_damaged_shard_is_named(folder: Path, rows: list[Row], harm: Callable[[Path], None], problem: str) -> None:
    write(folder, {"0001": rows})
    assert shard_index.load_index(folder).classes == ("cat", "dog")
    [path] = folder.glob("test/*")
    harm(path)

    with pytest.raises(DataError, match=f"test-0001-00000-of-00001.*{problem}"):
        shard_index.load_index(folder)


def test_every_single_flipped_byte_is_found(folder: Path, png: Callable[..., bytes]) -> None:
    write(folder, {"0001": [row(png(0, 4, 4), 0)]})
    [path] = folder.glob("train/*")
    whole = path.read_bytes()

    for place, bit in itertools.product(range(len(whole)), (0, 7)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        with pytest.raises(DataError, match="CRC-32C"):
            shard_index.load_index(folder)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [(lambda path: path.unlink(), "is missing"), (lambda path: damage(path, -1), "holds other bytes")],
    ids=["gone", "changed"],
)
def test_an_image_that_the_store_has_lost_is_named(
    folder: Path, rows: list[Row], harm: Callable[[Path], None], problem: str
) -> None:
    harm(store.path(rows[2].image_id))

    with pytest.raises(DataError, match=f"{rows[2].image_id}.*{problem}"):
        write(folder, {"0001": rows})

    assert not (folder / shard_index.INDEX).exists()
    assert not list(folder.rglob(f"{files.TEMPORARY_PREFIX}*"))


def test_a_batch_whose_rewriting_was_cut_off_is_written_again(folder: Path, rows: list[Row]) -> None:
    write(folder, {"0001": rows})
    expected = digests(folder)
    [path] = folder.glob("train/*")
    path.write_bytes(b"as if replaced by a later attempt")
    (folder / "train" / f"{files.TEMPORARY_PREFIX}left.tfrecord").write_bytes(b"half")

    write(folder, {"0001": rows})

    assert digests(folder) == expected


def test_an_index_of_another_version_keeps_its_classes_and_nothing_else(folder: Path, rows: list[Row]) -> None:
    write(folder, {"0001": rows})
    expected = digests(folder)
    content = files.read_json(folder / shard_index.INDEX)
    files.write_json(folder / shard_index.INDEX, {"classes": content["classes"], "files": [{"sha256": "of old"}]})

    assert shard_index.read_index(folder) == Index(("cat", "dog"), (), {})
    write(folder, {"0001": rows})
    assert digests(folder) == expected


WRITER = """
import json, sys
from pathlib import Path
from pipeline.dataset import shards
from pipeline.dataset.shards import Layout, Row
folder, rows = json.loads(sys.stdin.read())
rows = [Row(*row[:5], tuple(row[5]), *row[6:]) for row in rows]
shards.CHUNK_BYTES = 1000
print("ready", flush=True)
shards.write(Path(folder), {"0001": rows}, ["cat", "dog"], Layout(20_000, None, None, 90, "none"), threads=2)
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1], ids=str)
def test_a_writer_that_is_killed_leaves_nothing_half_written_in_sight(
    folder: Path, png: Callable[..., bytes], refit_home: Path, delay: float
) -> None:
    many = [row(png(number, 40, 40), number) for number in range(200)]
    write(folder.parent / "expected", {"0001": many}, replace(LAYOUT, target_bytes=20_000))
    expected = digests(folder.parent / "expected")
    environment = os.environ | {"REFIT_HOME": str(refit_home), "PYTHONPATH": str(code_root())}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(json.dumps([str(folder), [list(vars(row).values()) for row in many]]))
        writer.stdin.close()
        assert writer.stdout.readline() == "ready\n"
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)

    for path in folder.rglob("*.*"):
        if not path.name.startswith(files.TEMPORARY_PREFIX):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == expected[str(path.relative_to(folder))]
    shard_index.load_index(folder)  # none, or the whole one
    write(folder, {"0001": many}, replace(LAYOUT, target_bytes=20_000))
    assert digests(folder) == expected
