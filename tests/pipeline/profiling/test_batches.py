from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import files
from pipeline.dataset import manifest, store
from pipeline.errors import DataError
from pipeline.profiling import batches

Png = Callable[..., bytes]


def rows(batch: str, contents: list[bytes], **changes: str) -> pa.Table:
    row = {"source_version": "1", "label": "cat", "group": None, "batch": batch, "ingested_at": datetime.now(UTC)}
    row |= {"notes": [], "removed": False}
    return pa.Table.from_pylist(
        [
            row | {"image_id": store.put(data), "uri": f"{batch}/{number}.png", "bytes": len(data)} | changes
            for number, data in enumerate(contents)
        ],
        schema=manifest.SCHEMA,
    )


def test_one_row_for_each_manifest_row_in_its_order(tmp_path: Path, png: Png) -> None:
    first = rows("0001", [png(1, width=30), png(2, width=20), png(1, width=30)])

    assert batches.update(tmp_path, {"0001": first}, processes=1) == ["0001"]

    measured = manifest.read_batches(tmp_path)["0001"]
    assert measured["image_id"].to_pylist() == first["image_id"].to_pylist()
    assert measured["width"].to_pylist() == [30, 20, 30]
    assert measured["bytes"].to_pylist() == first["bytes"].to_pylist()


def test_only_what_changed_is_measured(tmp_path: Path, png: Png) -> None:
    first, second = rows("0001", [png(1)]), rows("0002", [png(2)])
    batches.update(tmp_path, {"0001": first}, processes=1)
    before = (tmp_path / "0001.parquet").stat()

    assert batches.update(tmp_path, {"0001": first, "0002": second}, processes=1) == ["0002"]
    assert batches.update(tmp_path, {"0001": first, "0002": second}, processes=1) == []

    after = (tmp_path / "0001.parquet").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("changes", [{"label": "dog"}, {"image_id": "other"}], ids=str)
def test_a_batch_whose_manifest_changed_is_measured_anew(tmp_path: Path, png: Png, changes: dict[str, str]) -> None:
    first = rows("0001", [png(1)])
    batches.update(tmp_path, {"0001": rows("0001", [png(2)]) if "image_id" in changes else first}, processes=1)

    changed = first if "image_id" in changes else rows("0001", [png(1)], **changes)

    assert batches.update(tmp_path, {"0001": changed}, processes=1) == ["0001"]
    assert manifest.read_batches(tmp_path)["0001"]["label"].to_pylist() == changed["label"].to_pylist()


def test_other_definitions_and_vanished_batches_are_not_kept(tmp_path: Path, png: Png) -> None:
    first, second = rows("0001", [png(1)]), rows("0002", [png(2)])
    batches.update(tmp_path, {"0001": first, "0002": second}, processes=1)
    table = manifest.read_batches(tmp_path)["0001"]
    files.write_table(tmp_path / "0001.parquet", table.replace_schema_metadata({"refit.features_version": "0"}))

    assert batches.update(tmp_path, {"0001": first}, processes=1) == ["0001"]
    assert list(manifest.read_batches(tmp_path)) == ["0001"]


def test_a_pool_measures_the_same(tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    many = rows("0001", [png(seed) for seed in range(3 * batches.CHUNK)])

    batches.update(tmp_path / "one", {"0001": many}, processes=1)
    monkeypatch.setattr(batches, "POOL_FROM", 0)
    batches.update(tmp_path / "pool", {"0001": many}, processes=2)

    assert files.sha256(tmp_path / "one/0001.parquet") == files.sha256(tmp_path / "pool/0001.parquet")


def test_an_image_is_measured_once_whatever_it_is_called(tmp_path: Path, png: Png) -> None:
    first = rows("0001", [png(1, width=30), png(2)])
    batches.update(tmp_path, {"0001": first}, processes=1)
    for image_id in first["image_id"].to_pylist():
        store.path(image_id).write_bytes(b"not to be read")
    renamed = rows("0002", [png(2), png(1, width=30), png(3), png(3)], label="dog")

    assert batches.update(tmp_path, {"0001": first, "0002": renamed}, processes=1) == ["0002"]

    measured = manifest.read_batches(tmp_path)["0002"]
    assert measured.select(["image_id", "batch", "label"]) == renamed.select(["image_id", "batch", "label"])
    assert measured["width"].to_pylist() == [12, 30, 12, 12]


def test_a_tombstone_has_no_features(tmp_path: Path, png: Png) -> None:
    first = rows("0001", [png(1), png(2)])
    gone = first.slice(1).set_column(first.schema.get_field_index("removed"), "removed", [[True]])
    both = {"0001": first, "0002": gone}

    assert batches.update(tmp_path, both, processes=1) == ["0001", "0002"]
    assert batches.update(tmp_path, both, processes=1) == []
    assert [table.num_rows for table in manifest.read_batches(tmp_path).values()] == [2, 0]
    assert batches.current(both, manifest.read_batches(tmp_path))["uri"].to_pylist() == ["0001/0.png"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [(lambda path: path.unlink(), "missing"), (lambda path: path.write_bytes(b"GIF89a"), "damaged|not-an-image")],
    ids=["gone", "overwritten"],
)
def test_a_broken_store_is_named_and_leaves_no_file(
    tmp_path: Path, png: Png, damage: Callable[[Path], object], told: str
) -> None:
    first = rows("0001", [png(1), png(2)])
    path = store.path(first["image_id"][1].as_py())
    damage(path)

    with pytest.raises(DataError, match=rf"{path}.*({told})"):
        batches.update(tmp_path / "features", {"0001": first}, processes=1)

    assert list((tmp_path / "features").iterdir()) == []


def test_an_error_comes_back_from_a_pool(tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "POOL_FROM", 0)
    many = rows("0001", [png(1)])
    store.path(many["image_id"][0].as_py()).unlink()

    with pytest.raises(DataError, match="missing"):
        batches.update(tmp_path, {"0001": many}, processes=2)


def test_current_follows_the_manifest(tmp_path: Path, png: Png) -> None:
    first = rows("0001", [png(1, width=30), png(2, width=20)])
    replaced = rows("0002", [png(3, width=40)], uri="0001/0.png")
    both = {"0001": first, "0002": replaced}
    batches.update(tmp_path, both, processes=1)

    table = batches.current(both, manifest.read_batches(tmp_path))

    assert table["uri"].to_pylist() == ["0001/1.png", "0001/0.png"]
    assert table["width"].to_pylist() == [20, 40]


def test_current_misses_no_image_in_silence(tmp_path: Path, png: Png) -> None:
    both = {"0001": rows("0001", [png(1)]), "0002": rows("0002", [png(2)])}
    batches.update(tmp_path, {"0001": both["0001"]}, processes=1)

    with pytest.raises(DataError, match="each of 2 images, found none for 1"):
        batches.current(both, manifest.read_batches(tmp_path))


def test_a_file_that_was_moved_came_with_its_first_batch(tmp_path: Path, png: Png) -> None:
    stored = {"0001": rows("0001", [png(1), png(2)]), "0002": rows("0002", [png(1), png(3)], label="moved")}
    batches.update(tmp_path, stored, 1)
    table = batches.current(stored, manifest.read_batches(tmp_path))
    came = batches.by_arrival(table, stored)
    first = dict(zip(table["image_id"].to_pylist(), came["batch"].to_pylist(), strict=True))
    assert [first[store.put(png(seed))] for seed in (1, 2, 3)] == ["0001", "0001", "0002"]
    assert came.drop(["batch"]).equals(table.drop(["batch"]))
