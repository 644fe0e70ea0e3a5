"""All judgements of the data in one: classes, files, images, drift, feature statistics; and the page about them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import files
from pipeline.settings import Severity, Validate
from pipeline.validation import anomalies, data_docs, drift, expectations, page, rules, tables
from pipeline.validation.verdict import Finding, Verdict


def validate(
    table: pa.Table,
    statistics: Path,
    *,
    schema: Path,
    quarantine: pa.Table,
    near_duplicates: Iterable[tuple[str, str]],
    suspects: pa.Table,
    training: pa.Table | None,
    new: pa.Table,
    ingest: Mapping[str, Any],
    profile: Mapping[str, Any],
    limits: Validate,
    folds: int,
    max_pixels: int,
    evidence: Path,
) -> Verdict:
    """Judge, and write what the judgement rests on into the folder `evidence` (replaced as a whole).

    Args:
        table: feature rows of the current images with their `uri`, at least one.
        statistics: of the same rows, a binary `DatasetFeatureStatisticsList`.
        schema: TFDV schema (text proto) that the statistics are held against.
        quarantine: data/quarantine/current.parquet.
        near_duplicates: pairs of image ids.
        suspects: data/suspects.parquet.
        training: feature rows of the live model's training data; None without a live model.
        new: those of `table` that are new to the live model; all without one.
        ingest, profile: the metrics of these stages.
        folds: of the cross-validation.
        max_pixels: larger images are not drawn.
    """
    found = anomalies.find(statistics, schema)
    judged = tables.build(table, quarantine, near_duplicates, suspects)
    suite = rules.rules(
        judged,
        limits,
        folds=folds,
        live=profile["live_classes"],
        newest=max((batch["batch"] for batch in ingest["batches"]), key=int, default=None),
        suspects=suspects["image_id"].to_pylist(),
        unsearched=profile["near_duplicates"]["not_searched_for_crops"],
    )
    with files.replacing_directory(evidence) as folder:
        with tempfile.TemporaryDirectory() as project:
            broken = expectations.findings(suite, judged, Path(project))
            data_docs.publish(Path(project) / expectations.SITE, folder / "data_docs")
        outside = anomalies.findings(found, table, own=limits.schema_ is None)
        verdict = Verdict.of(
            [*broken, *drift.findings(profile, limits.policy), *_at_most(limits.policy.schema_, outside)]
        )
        files.write_text(folder / "anomalies.pbtxt", anomalies.to_text(found))
        files.write_json(folder / "verdict.json", verdict.to_json())
        evidenced = page.Evidence(verdict, judged, table, quarantine, suspects, training, new, profile)
        files.write_text(folder / "index.html", page.render(evidenced, max_pixels=max_pixels))
    return verdict


def _at_most(allowed: Severity, found: Iterable[Finding]) -> Iterator[Finding]:
    """`found` as the policy lets them be: what blocks becomes a warning under `warn`, nothing is left under `off`."""
    for finding in found:
        if allowed != "off":
            yield replace(finding, severity=allowed) if finding.severity == "block" else finding
