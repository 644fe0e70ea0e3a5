import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.dataset import records, store
from pipeline.dataset.records import Row
from pipeline.errors import DataError

CLASSES = ["cat", "dog"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"


@pytest.fixture
def rows(png: Callable[..., bytes]) -> list[Row]:
    return [
        Row(store.put(png(number)), number % 2, CLASSES[number % 2], f"g{number}", "train" if number < 8 else "test")
        for number in range(10)
    ]


def write(folder: Path, batches: dict[str, list[Row]], target_bytes: int = 10**6) -> records.Index:
    return records.write(folder, batches, CLASSES, target_bytes=target_bytes)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.*")
    }


def test_plain_tensorflow_reads_the_documented_keys(folder: Path, rows: list[Row], png: Callable[..., bytes]) -> None:
    index = write(folder, {"0001": rows})
    assert [entry.path for entry in index.files] == [
        "test/test-0001-00000-of-00001.tfrecord",
        "train/train-0001-00000-of-00001.tfrecord",
    ]
    found = {}
    for serialized in tf.data.TFRecordDataset([str(folder / entry.path) for entry in index.files]):
        feature = tf.train.Example.FromString(serialized.numpy()).features.feature
        found[feature["image/id"].bytes_list.value[0].decode()] = feature
    assert set(found) == {row.image_id for row in rows}
    feature = found[rows[3].image_id]
    assert feature["image/encoded"].bytes_list.value == [png(3)]
    assert feature["image/format"].bytes_list.value == [b"png"]
    assert (feature["image/height"].int64_list.value, feature["image/width"].int64_list.value) == ([10], [12])
    assert feature["image/class/label"].int64_list.value == [1]
    assert feature["image/class/text"].bytes_list.value == [b"dog"]
    assert feature["image/group"].bytes_list.value == [b"g3"]
    assert feature["image/augmented"].int64_list.value == [0]


def test_equal_rows_are_equal_bytes_whatever_their_order(folder: Path, rows: list[Row]) -> None:
    write(folder / "one", {"0001": rows})
    write(folder / "two", {"0001": rows[::-1]})
    assert digests(folder / "one") == digests(folder / "two")


def test_only_batches_that_changed_are_rewritten(folder: Path, rows: list[Row]) -> None:
    write(folder, {"0001": rows[:8]})
    [old] = folder.glob("train/*0001*")
    stamp = old.stat().st_mtime_ns
    index = write(folder, {"0001": rows[:8], "0002": rows[8:]})
    assert old.stat().st_mtime_ns == stamp
    assert {entry.batch for entry in index.files} == {"0001", "0002"}
    relabelled = [*rows[:7], Row(rows[7].image_id, 0, "cat", "g7", "train")]
    write(folder, {"0001": relabelled})
    assert old.stat().st_mtime_ns != stamp
    assert not list(folder.glob("*/*0002*"))


def test_large_batches_are_cut_into_files_of_the_target_size(folder: Path, rows: list[Row]) -> None:
    index = write(folder, {"0001": rows}, target_bytes=1024)
    train = [entry for entry in index.files if entry.split == "train"]
    assert len(train) == -(-sum(store.path(row.image_id).stat().st_size for row in rows[:8]) // 1024)
    assert sum(entry.examples for entry in train) == 8


def test_the_reader_gives_the_chosen_images_with_the_chosen_classes(folder: Path, rows: list[Row]) -> None:
    index = write(folder, {"0001": rows})
    keep = {rows[0].image_id: 1, rows[5].image_id: 0, rows[9].image_id: 1}
    found = {
        id_.numpy().decode(): (image.numpy(), int(label))
        for image, label, id_ in records.dataset(folder, index, keep, size=16)
    }
    assert {id_: label for id_, (_, label) in found.items()} == keep
    assert all(image.shape == (16, 16, 3) and image.dtype == np.uint8 for image, _ in found.values())
    only = records.dataset(folder, index, keep, size=16, splits=("test",))
    assert [id_.numpy().decode() for _, _, id_ in only] == [rows[9].image_id]


def test_the_reader_shows_the_pixels_of_the_file(folder: Path, rows: list[Row], png: Callable[..., bytes]) -> None:
    square = Row(store.put(png(77, 10, 10)), 0, "cat", "g", "train")
    index = write(folder, {"0001": [square]})
    [(image, _, _)] = list(records.dataset(folder, index, {square.image_id: 0}, size=10))
    expected = np.random.default_rng(77).integers(0, 256, (10, 10, 3), np.uint8)
    np.testing.assert_array_equal(image.numpy(), expected)


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"short")], ids=["gone", "cut"]
)
def test_a_missing_or_cut_shard_is_named(folder: Path, rows: list[Row], damage: Callable[[Path], None]) -> None:
    write(folder, {"0001": rows})
    [path] = folder.glob("test/*")
    damage(path)
    with pytest.raises(DataError, match="test-0001-00000-of-00001"):
        records.load_index(folder)


def test_an_image_that_is_gone_from_the_store_is_named(folder: Path, rows: list[Row]) -> None:
    store.path(rows[2].image_id).unlink()
    with pytest.raises((DataError, FileNotFoundError), match=rows[2].image_id):
        write(folder, {"0001": rows})
    assert not (folder / "index.json").exists()


def test_what_pillow_reads_and_tensorflow_does_not_is_encoded_anew(folder: Path, png: Callable[..., bytes]) -> None:
    cut = png(3, 10, 10)[:-12]  # without its end chunk
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_image(cut)
    row = Row(store.put(cut), 0, "cat", "g", "train")
    index = write(folder, {"0001": [row]})
    [(image, _, _)] = list(records.dataset(folder, index, {row.image_id: 0}, size=10))
    np.testing.assert_array_equal(image.numpy(), np.random.default_rng(3).integers(0, 256, (10, 10, 3), np.uint8))


def test_a_batch_whose_rewriting_was_cut_off_is_written_again(folder: Path, rows: list[Row]) -> None:
    write(folder, {"0001": rows})
    expected = digests(folder)
    [path] = folder.glob("train/*")
    path.write_bytes(b"as if replaced by a later attempt")
    write(folder, {"0001": rows})
    assert digests(folder) == expected
