from __future__ import annotations

import pyarrow as pa

from pipeline.dataset import manifest


def batch(name: str, *rows: tuple[str, bool]) -> pa.Table:
    columns = [{"image_id": image_id, "batch": name, "removed": removed} for image_id, removed in rows]
    return pa.Table.from_pylist(columns, manifest.SCHEMA)


def test_an_image_came_with_the_first_batch_that_has_it_whatever_became_of_its_files() -> None:
    batches = {
        "10000": batch("10000", ("new", False), ("moved", False)),
        "0001": batch("0001", ("moved", False), ("back", False)),
        "0002": batch("0002", ("moved", True), ("back", True)),
        "9999": batch("9999", ("back", False)),
    }
    assert manifest.first_batch(batches) == {"moved": "0001", "back": "0001", "new": "10000"}
