from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline.dataset import augment, presets, records, shards, store
from pipeline.dataset.presets import Policy
from pipeline.dataset.records import Worker
from pipeline.dataset.shard_index import Index
from pipeline.dataset.shards import Layout, Row
from pipeline.errors import DataError

LAYOUT = Layout(target_bytes=10**6, files=None, max_side=None, quality=90, compression="none")
SIZE = 8
NOTHING = Policy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"


@pytest.fixture
def rows(png: Callable[..., bytes]) -> list[Row]:
    """Twenty training images of two classes, 15 and 5, and four test images."""
    return [
        Row(store.put(png(number)), int(number % 4 == 0), "ab"[number % 4 == 0], "g", split, (), 500)
        for number, split in enumerate(["train"] * 20 + ["test"] * 4)
    ]


def write(folder: Path, rows: list[Row], layout: Layout = LAYOUT) -> Index:
    return shards.write(folder, {"0001": rows}, ["a", "b"], layout, threads=1, alter=lambda image, _: image)


def keep(rows: list[Row], split: str = "train") -> dict[str, int]:
    return {row.image_id: row.label for row in rows if row.split == split}


def names(found: Any) -> list[str]:
    return [element["id"].decode() for element in found.as_numpy_iterator()]


def test_the_chosen_images_come_with_the_chosen_classes(folder: Path, rows: list[Row]) -> None:
    index = write(folder, rows)
    chosen = {rows[0].image_id: 7, rows[5].image_id: 0, rows[23].image_id: 1}

    found = list(records.dataset(folder, index, chosen, size=SIZE).as_numpy_iterator())

    assert {element["id"].decode(): element["class"] for element in found} == chosen
    for element in found:
        assert (element["image"].shape, element["image"].dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert (element["view"], element["copy"]) == (0, 0)
    assert names(records.dataset(folder, index, chosen, size=SIZE, splits=("test",))) == [rows[23].image_id]


def test_pixels_are_those_of_the_file(folder: Path, png: Callable[..., bytes]) -> None:
    square = Row(store.put(png(77, 10, 10)), 0, "a", "g", "train", (), 400)
    index = write(folder, [square])

    [element] = records.dataset(folder, index, {square.image_id: 0}, size=10).as_numpy_iterator()

    np.testing.assert_array_equal(element["image"], np.random.default_rng(77).integers(0, 256, (10, 10, 3), np.uint8))


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_all_files_are_read_in_the_same_order_each_time(folder: Path, rows: list[Row], compression: Any) -> None:
    index = write(folder, rows, replace(LAYOUT, files=4, compression=compression))

    found = [names(records.dataset(folder, index, keep(rows), size=SIZE)) for _ in range(2)]

    assert found[0] == found[1]
    assert sorted(found[0]) == sorted(keep(rows))
    loose = names(records.dataset(folder, index, keep(rows), size=SIZE, deterministic=False))
    assert sorted(loose) == sorted(keep(rows))


def test_copies_are_read_on_demand_and_only_with_their_image(folder: Path, rows: list[Row]) -> None:
    copies = [replace(rows[0], copy=1), replace(rows[0], copy=2), replace(rows[1], copy=1)]
    index = write(folder, [*rows, *copies])
    chosen = {rows[0].image_id: 1, rows[2].image_id: 0}

    assert len(names(records.dataset(folder, index, chosen, size=SIZE))) == 2
    found = list(records.dataset(folder, index, chosen, size=SIZE, copies=True).as_numpy_iterator())

    assert sorted((element["id"].decode(), int(element["copy"])) for element in found) == sorted(
        [(rows[0].image_id, 0), (rows[0].image_id, 1), (rows[0].image_id, 2), (rows[2].image_id, 0)]
    )


@pytest.mark.parametrize("files", [1, 5, 24], ids=["fewer files than workers", "a few", "many"])
def test_workers_share_the_images(folder: Path, rows: list[Row], files: int) -> None:
    index = write(folder, rows, replace(LAYOUT, files=files))

    parts = [
        names(records.dataset(folder, index, keep(rows), size=SIZE, splits=("train",), worker=Worker(number, 3)))
        for number in range(3)
    ]

    assert sorted(itertools.chain(*parts)) == sorted(keep(rows))
    assert all(parts)


def take(folder: Path, index: Index, chosen: dict[str, int], count: int, **options: Any) -> list[Any]:
    chosen_options = {"size": SIZE, "batch_size": 5, "policy": NOTHING, "seed": 1} | options
    endless = records.batches(folder, index, chosen, **chosen_options)
    return list(endless.take(count).as_numpy_iterator())


def test_an_epoch_takes_every_image_once_in_a_new_order_and_another_view(folder: Path, rows: list[Row]) -> None:
    index = write(folder, rows, replace(LAYOUT, files=3))

    found = take(folder, index, keep(rows), 8)

    assert {batch["image"].shape for batch in found} == {(5, SIZE, SIZE, 3)}
    epochs = [[name for batch in found[i : i + 4] for name in batch["id"]] for i in (0, 4)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(name.encode() for name in keep(rows))
    assert epochs[0] != epochs[1]
    assert [set(batch["view"]) for batch in found] == [{1}] * 4 + [{2}] * 4
    again = take(folder, index, keep(rows), 8)
    other = take(folder, index, keep(rows), 8, seed=2)
    assert [list(batch["id"]) for batch in found] == [list(batch["id"]) for batch in again]
    assert [list(batch["id"]) for batch in found] != [list(batch["id"]) for batch in other]


def test_orders_depend_on_their_own_seed_alone(folder: Path, rows: list[Row]) -> None:
    index = write(folder, rows, replace(LAYOUT, files=3))
    orders = []
    for seed in (0, 5):
        tf.random.set_seed(seed)
        orders.append([list(batch["id"]) for batch in take(folder, index, keep(rows), 8)])
    assert orders[0] == orders[1]


def test_no_images_are_an_error_not_an_endless_wait(folder: Path, rows: list[Row]) -> None:
    with pytest.raises(DataError, match="got none"):
        take(folder, write(folder, rows), {}, 1)


def test_training_can_be_taken_up_at_a_later_epoch(folder: Path, rows: list[Row]) -> None:
    index = write(folder, rows)

    whole = take(folder, index, keep(rows), 8)
    rest = take(folder, index, keep(rows), 4, first_epoch=1)

    for one, other in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(one["id"], other["id"])
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["view"], other["view"])


def test_balanced_batches_have_as_many_images_of_each_class(folder: Path, rows: list[Row]) -> None:
    index = write(folder, rows)
    chosen = keep(rows)

    found = take(folder, index, chosen, 80, balanced=True)  # 20 epochs of about 20 images

    classes = Counter(int(number) for batch in found for number in batch["class"])
    assert abs(classes[0] - 200) < 40  # of 400; without balancing 300
    seen = Counter(name.decode() for batch in found for name in batch["id"])
    assert set(seen) == set(chosen)
    # 20 / (2 * 15) and 20 / (2 * 5) times an epoch.
    assert all(abs(times - (40 if chosen[name] else 40 / 3)) < 14 for name, times in seen.items())
    pairs = Counter((name, int(view)) for batch in found for name, view in zip(batch["id"], batch["view"], strict=True))
    assert max(pairs.values()) == 1  # one image twice in an epoch comes in two views


def half_and_half(name: str) -> bytes:
    """Red on the left, blue on the right."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0] = pixels[:, 30:, 2] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_views_are_cropped_while_they_are_decoded(folder: Path, name: str) -> None:
    row = Row(store.put(half_and_half(name)), 0, "a", "g", "train", (), 400)
    index = write(folder, [row, replace(row, copy=1)])
    policy = replace(NOTHING, crop=0.25)

    for view in range(1, 6):
        options: dict[str, Any] = {"size": 30, "view": view, "policy": policy, "seed": 3, "copies": True}
        image, copy = records.dataset(folder, index, {row.image_id: 0}, **options).as_numpy_iterator()

        _, left, _, width = augment.crop(row.image_id, view, policy=policy, seed=3).numpy()
        red = float(np.clip((0.5 - left) / width, 0, 1))  # share of the crop that lies left of the middle
        assert abs(image["image"][..., 0].mean() / 255 - red) < 0.06
        # A stored copy was cropped when it was made.
        assert abs(copy["image"][..., 0].mean() / 255 - 0.5) < 0.03


def test_a_whole_view_is_not_cropped(folder: Path, rows: list[Row]) -> None:
    index = write(folder, rows)
    options: dict[str, Any] = {"size": SIZE, "policy": presets.PRESETS["strong"], "seed": 3}

    plain = records.dataset(folder, index, keep(rows), size=SIZE).as_numpy_iterator()
    stored = records.dataset(folder, index, keep(rows), view=0, **options).as_numpy_iterator()
    cropped = records.dataset(folder, index, keep(rows), view=1, **options).as_numpy_iterator()

    changed = []
    for one, same, other in zip(plain, stored, cropped, strict=True):
        np.testing.assert_array_equal(one["image"], same["image"])
        changed.append(not np.array_equal(one["image"], other["image"]))
    assert sum(changed) > 15  # of 20; of 10 x 12 pixels a large crop may be all


def test_a_shard_that_is_damaged_while_it_is_read_is_named(folder: Path, rows: list[Row]) -> None:
    index = write(folder, rows)
    [path] = folder.glob("train/*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with (
        pytest.raises(DataError, match=r"train-0001-00000-of-00001.*CRC-32C"),
        records.damage_named(folder, index),
    ):
        names(records.dataset(folder, index, keep(rows), size=SIZE))


def test_an_image_that_tensorflow_cannot_read_is_named(folder: Path, rows: list[Row]) -> None:
    def spoil(image: Any, row: Row) -> Any:
        return replace(image, data=b"\xff\xd8\xff no picture") if row.image_id == rows[4].image_id else image

    copies = [replace(row, copy=1) for row in rows[:8]]
    index = shards.write(folder, {"0001": copies}, ["a", "b"], LAYOUT, threads=1, alter=spoil)

    with pytest.raises(DataError, match=rows[4].image_id), records.damage_named(folder, index):
        names(records.dataset(folder, index, keep(rows), size=SIZE, copies=True))


def test_other_errors_pass(folder: Path, rows: list[Row]) -> None:
    index = write(folder, rows)

    with pytest.raises(tf.errors.InvalidArgumentError, match="of the caller"), records.damage_named(folder, index):
        raise tf.errors.InvalidArgumentError(None, None, "of the caller")
