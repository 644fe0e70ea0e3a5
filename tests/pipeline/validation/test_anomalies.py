from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import runtime
from pipeline.dataset.images import FORMATS
from pipeline.validation.verdict import Finding
from tests.pipeline.profiling.tables import table

with runtime.quiet_imports():
    import tensorflow_data_validation as tfdv

    from pipeline.profiling import statistics
    from pipeline.validation import anomalies


def judged(tmp_path: Path, rows: pa.Table) -> list[Finding]:
    (tmp_path / "stats.pb").write_bytes(statistics.to_bytes(statistics.compute(rows)))
    return list(anomalies.findings(anomalies.find(tmp_path / "stats.pb")))


def test_ordinary_features_have_no_anomaly(tmp_path: Path) -> None:
    assert judged(tmp_path, table(60)) == []


@pytest.mark.parametrize(
    ("columns", "feature", "severity"),
    [
        pytest.param({"brightness": 1.2}, "brightness", "block", id="above-its-range"),
        pytest.param({"entropy": -0.5}, "entropy", "block", id="below-its-range"),
        pytest.param({"contrast": [float("nan")] + [0.1] * 59}, "contrast", "block", id="not-a-number"),
        pytest.param({"width": [0] + [100] * 59}, "width", "block", id="no-pixels"),
        pytest.param({"label": [None] + ["cat"] * 59}, "label", "block", id="missing"),
        pytest.param({"format": "JPEG2000"}, "format", "warn", id="unheard-of-format"),
    ],
)
def test_impossible_features_are_found(tmp_path: Path, columns: dict[str, Any], feature: str, severity: str) -> None:
    found = {finding.check: finding for finding in judged(tmp_path, table(60, **columns))}

    assert set(found) == {f"schema-{feature}"}
    assert found[f"schema-{feature}"].severity == severity
    assert feature in found[f"schema-{feature}"].message


def test_a_missing_column_is_found(tmp_path: Path) -> None:
    rows = statistics.compute(table(60))
    del rows.datasets[0].features[[f.path.step[0] for f in rows.datasets[0].features].index("entropy")]
    (tmp_path / "stats.pb").write_bytes(statistics.to_bytes(rows))

    (finding,) = anomalies.findings(anomalies.find(tmp_path / "stats.pb"))

    assert (finding.check, finding.severity) == ("schema-entropy", "block")


def test_the_schema_covers_every_feature_and_every_format_that_ingest_accepts() -> None:
    schema = tfdv.load_schema_text(str(anomalies.SCHEMA))

    assert {feature.name for feature in schema.feature} == set(statistics.COLUMNS)
    domains = {domain.name: set(domain.value) for domain in schema.string_domain}
    assert set(FORMATS) <= domains["format"]
