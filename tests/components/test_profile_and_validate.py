from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components import profile, validate
from pipeline import files, runtime
from pipeline.dataset import manifest, store

with runtime.quiet_imports():
    import pipeline.profiling.statistics
    import pipeline.validation.validate  # noqa: F401  (so that no test is the one that pays for it)

ROOT = Path(__file__).parents[2]
Png = Callable[..., bytes]


def deliver(batch: str, png: Png, classes: dict[str, int], first_seed: int = 0) -> None:
    """What ingest leaves: one more batch of the manifest, and its counts."""
    labels = [label for label, count in classes.items() for _ in range(count)]
    rows = []
    for number, label in enumerate(labels):
        data = png(first_seed + number, 20, 16)
        row = {
            "image_id": store.put(data),
            "uri": f"{label}/{batch}-{number}.png",
            "source_version": "1",
            "label": label,
        }
        row |= {"group": None, "bytes": len(data), "batch": batch, "ingested_at": datetime.now(UTC)}
        rows.append(row | {"notes": [], "removed": False})
    files.write_table(Path(f"data/manifest/{batch}.parquet"), pa.Table.from_pylist(rows, schema=manifest.SCHEMA))
    files.write_table(Path("data/quarantine/current.parquet"), manifest.QUARANTINE_SCHEMA.empty_table())
    counts = {"batch": batch, "listed": len(rows), "known": 0, "accepted": len(rows), "quarantined": {}}
    files.write_json(Path("metrics/ingest.json"), {"images": len(rows), "classes": classes, "batches": [counts]})


def test_good_data_pass_and_leave_every_declared_output(run: Path, png: Png) -> None:
    deliver("0001", png, {"cat": 20, "dog": 20})

    profile.main()
    validate.main()

    verdict = files.read_json(run / "reports/validation/verdict.json")
    assert verdict == {"verdict": "pass", "findings": []}
    assert pq.read_table(run / "data/features/0001.parquet").num_rows == 40
    assert (run / "data/statistics/stats.pb").stat().st_size > 0
    assert files.read_json(run / "metrics/profile.json")["images"] == 40
    assert {path.name for path in (run / "reports/validation").iterdir()} == {
        "verdict.json",
        "index.html",
        "anomalies.pbtxt",
        "data_docs",
    }
    left = {path.name for path in run.iterdir()}
    assert left == {"params.yaml", "schema.pbtxt", "live.json", "data", "metrics", "reports"}


def test_new_images_are_compared_with_the_live_models_training(run: Path, png: Png) -> None:
    deliver("0001", png, {"cat": 60, "dog": 60})
    profile.main()
    live = run.parent / "registry/classifier/1"
    files.write_table(live / "training.parquet", pq.read_table("data/features/0001.parquet").slice(10))
    files.write_json(Path("live.json"), {"version": 1, "generation": 1, "path": str(live), "digest": "0"})
    before = Path("data/features/0001.parquet").stat().st_ino

    def dark(seed: int, width: int, height: int) -> bytes:
        import io

        from PIL import Image

        with Image.open(io.BytesIO(png(seed, width, height))) as image:
            buffer = io.BytesIO()
            image.point(lambda value: value // 4).save(buffer, "PNG")
        return buffer.getvalue()

    deliver("0002", dark, {"cat": 40, "eel": 40}, first_seed=1000)
    profile.main()
    validate.main()

    metrics = files.read_json(run / "metrics/profile.json")
    assert (metrics["images"], metrics["new_images"]) == (200, 80)
    assert "brightness" in {item["feature"] for item in metrics["drift"] if item["drifted"]}
    assert Path("data/features/0001.parquet").stat().st_ino == before
    verdict = files.read_json(run / "reports/validation/verdict.json")
    assert verdict["verdict"] == "warn"
    assert {finding["check"] for finding in verdict["findings"]} == {"drift", "class_mix", "class_added"}
