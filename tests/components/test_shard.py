from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components import profile, shard
from pipeline import files, runtime
from pipeline.dataset import manifest
from pipeline.dataset.splits import QUARANTINE, TEST, TRAIN
from tests.components.test_profile_and_validate import deliver

with runtime.quiet_imports():
    import pipeline.dataset.records  # noqa: F401  (so that no test is the one that pays for it)


def regroup(batch: str, groups: dict[str, str | None]) -> None:
    """What ingest leaves when the groups of images were edited: their rows anew."""
    rows = manifest.current(manifest.read_batches(Path("data/manifest"))).to_pylist()
    changed = [row | {"group": groups[row["image_id"]], "batch": batch} for row in rows if row["image_id"] in groups]
    files.write_table(Path(f"data/manifest/{batch}.parquet"), pa.Table.from_pylist(changed, manifest.SCHEMA))


def sharded() -> dict[str, dict[str, object]]:
    profile.main()
    shard.main()
    return {row["image_id"]: row for row in pq.read_table("data/assignment.parquet").to_pylist()}


def test_a_wrong_group_withholds_images_for_as_long_as_it_lasts(run: Path, png: Callable[..., bytes]) -> None:
    deliver("0001", png, {"cat": 20, "dog": 20})
    before = sharded()
    counts = files.read_json(run / "metrics/shard.json")
    assert counts["classes"] == {
        "train": {"cat": 14, "dog": 14},
        "val": {"cat": 3, "dog": 3},
        "test": {"cat": 3, "dog": 3},
        "quarantine": {},
    }
    assert counts["shortfalls"] == []
    recorded = files.sha256(run / "data/splits/0001.parquet")
    trained = next(image_id for image_id, row in before.items() if row["split"] == TRAIN)
    held_out = next(image_id for image_id, row in before.items() if row["split"] == TEST)

    regroup("0002", {trained: "patient", held_out: "patient"})
    during = sharded()
    assert during[trained]["reason"] == "train image, in one group with a test image"
    changed = {image_id for image_id, row in during.items() if row["split"] != before[image_id]["split"]}
    assert changed == {trained}
    written = files.read_json(run / "data/shards/index.json")["files"]
    assert sum(entry["examples"] for entry in written) == 39
    assert files.read_json(run / "metrics/shard.json")["quarantined"] == {during[trained]["reason"]: 1}

    regroup("0003", {trained: None, held_out: None})
    after = sharded()
    assert {image_id: row["split"] for image_id, row in after.items()} == {
        image_id: row["split"] for image_id, row in before.items()
    }
    assert QUARANTINE not in {row["split"] for row in after.values()}
    assert [path.name for path in (run / "data/splits").iterdir()] == ["0001.parquet"]
    assert files.sha256(run / "data/splits/0001.parquet") == recorded
