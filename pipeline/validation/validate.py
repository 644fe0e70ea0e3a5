"""All judgements of the data in one: rows, feature statistics, the dataset as a whole."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import files
from pipeline.settings import Validate
from pipeline.validation import anomalies, checks, expectations, pages
from pipeline.validation.verdict import Verdict


def validate(
    table: pa.Table,
    statistics: Path,
    *,
    ingest: Mapping[str, Any],
    profile: Mapping[str, Any],
    limits: Validate,
    folds: int,
    evidence: Path,
) -> Verdict:
    """Judge, and write what the judgement rests on into the folder `evidence` (replaced as a whole).

    Args:
        table: feature rows of the current images with their `uri`.
        statistics: of the same rows, a binary `DatasetFeatureStatisticsList`.
        ingest, profile: the metrics of these stages.
    """
    classes = Counter(table["label"].to_pylist())
    found = anomalies.find(statistics)
    with files.replacing_directory(evidence) as folder:
        with tempfile.TemporaryDirectory() as project:
            outcomes = expectations.run(table, expectations.rules(limits), Path(project))
            pages.publish(Path(project) / expectations.SITE, folder / "data_docs")
        verdict = Verdict.of(
            [
                *checks.check(classes, ingest=ingest, profile=profile, limits=limits, folds=folds),
                *expectations.findings(outcomes),
                *anomalies.findings(found),
            ]
        )
        files.write_text(folder / "anomalies.pbtxt", anomalies.to_text(found))
        files.write_json(folder / "verdict.json", verdict.to_json())
    return verdict
