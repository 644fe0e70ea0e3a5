"""The settings and tables that tests of the gate start from: two classes of images that nothing is wrong with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import runtime, settings
from pipeline.dataset import manifest
from pipeline.profiling import features
from pipeline.settings import Validate
from pipeline.validation.verdict import Finding
from tests.pipeline.profiling.tables import table

with runtime.quiet_imports():
    from pipeline.validation import expectations, rules, tables
    from pipeline.validation.tables import Tables

ROOT = Path(__file__).parents[3]
SUSPECTS = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "uri", "label", "suggested")),
        *((name, pa.float64()) for name in ("label_probability", "suggested_probability")),
    ]
)


def limits(*overrides: str) -> Validate:
    """The defaults of params.yaml, changed by `key=value` texts."""
    params = settings.read_params(ROOT / "params.yaml")
    return settings.parse(settings.with_overrides(params, [f"validate.{text}" for text in overrides])).validate_


def images(count: int = 40, **columns: Any) -> pa.Table:
    """Feature rows with `uri`; `columns` replaces whole columns (a value or a list)."""
    uri = columns.pop("uri", [f"{number}.png" for number in range(count)])
    greys = np.random.default_rng(0).integers(30, 220, (count, 256), np.uint8)
    thumbnails = columns.pop("thumbnail", [row.tobytes() for row in greys])
    return table(count, thumbnail=thumbnails, **{"sharpness": 0.02} | columns).append_column(
        "uri", pa.array(uri, pa.string())
    )


def of_classes(classes: Mapping[str, int]) -> pa.Table:
    return images(sum(classes.values()), label=[label for label, count in classes.items() for _ in range(count)])


def quarantined(reasons: Iterable[str], **columns: Any) -> pa.Table:
    """One file of batch 0001 for each of `reasons`, read and of class cat unless `columns` says otherwise."""
    rows = [
        {"image_id": f"q{number}", "uri": f"cat/q{number}.jpg", "label": "cat", "batch": "0001", "reason": reason}
        for number, reason in enumerate(reasons)
    ]
    return pa.Table.from_pylist([row | columns for row in rows], manifest.QUARANTINE_SCHEMA)


def suspected(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"label_probability": 0.01, "suggested_probability": 0.9} | row for row in rows], SUSPECTS
    )


def build(
    rows: pa.Table,
    quarantine: pa.Table | None = None,
    pairs: Iterable[tuple[str, str]] = (),
    suspects: pa.Table | None = None,
) -> Tables:
    return tables.build(rows, quarantine or quarantined([]), pairs, suspects or suspected([]))


def judged(judged_tables: Tables, project: Path, chosen: Validate | None = None, **options: Any) -> list[Finding]:
    """What the whole suite finds; `options` as of `rules.rules`."""
    wanted = {"folds": 3, "live": None, "newest": "0001", "suspects": (), "unsearched": 0} | options
    suite = rules.rules(judged_tables, chosen or limits(), **wanted)
    return expectations.findings(suite, judged_tables, project)


def profile(rows: pa.Table, training: pa.Table | None = None, **changes: Any) -> dict[str, Any]:
    """metrics/profile.json about `rows`, without drift, gap and suspects unless `changes` has them."""
    medians = {name: float(np.median(rows[name].to_numpy())) for name in features.NUMERIC}
    live = None if training is None else dict.fromkeys(training["label"].to_pylist(), 3)
    content = {
        "images": rows.num_rows,
        "new_images": rows.num_rows,
        "live_classes": live,
        "features": {
            name: {"median": value, "p05": 0.0, "p95": 1.0, "live_median": None, "imagenet": None}
            for name, value in medians.items()
        },
        "drift": [],
        "imagenet_gap": [],
        "domain_gap": None,
        "near_duplicates": {
            "pairs": 0,
            "groups": 0,
            "images": 0,
            "searched_for_crops": 40,
            "not_searched_for_crops": 0,
        },
        "embedded": 0,
        "suspects": None,
    }
    return content | changes
