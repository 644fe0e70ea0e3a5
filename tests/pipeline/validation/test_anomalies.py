from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.schema_pb2 import Schema

from pipeline import runtime
from pipeline.dataset.images import FORMATS
from pipeline.errors import SettingsError
from pipeline.profiling import schema as schemas
from pipeline.validation.verdict import Finding
from tests.pipeline.profiling.tables import table

with runtime.quiet_imports():
    from pipeline.profiling import statistics
    from pipeline.validation import anomalies


def with_uris(rows: pa.Table) -> pa.Table:
    return rows.append_column("uri", pa.array([f"{number}.jpg" for number in range(len(rows))]))


def judged(folder: Path, rows: pa.Table, text: str | None = None) -> list[Finding]:
    """By a user's schema if there is a text, else by Refit's own."""
    (folder / "stats.pb").write_bytes(statistics.to_bytes(statistics.compute(rows)))
    schema = anomalies.SCHEMA
    if text is not None:
        schema = folder / "schema.pbtxt"
        schema.write_text(text)
    found = anomalies.find(folder / "stats.pb", schema)
    return list(anomalies.findings(found, with_uris(rows), own=text is None))


def committed(*, without: str) -> str:
    """Refit's own schema without one of its features."""
    schema = schemas.read(anomalies.SCHEMA)
    kept = [feature for feature in schema.feature if feature.name != without]
    return text_format.MessageToString(Schema(feature=kept, string_domain=schema.string_domain))


def test_ordinary_features_have_no_anomaly(tmp_path: Path) -> None:
    assert judged(tmp_path, table(60)) == []


@pytest.mark.parametrize(
    ("columns", "feature", "severity"),
    [
        pytest.param({"brightness": [1.2] + [0.5] * 59}, "brightness", "block", id="above-its-range"),
        pytest.param({"entropy": [-0.5] + [0.1] * 59}, "entropy", "block", id="below-its-range"),
        pytest.param({"contrast": [float("nan")] + [0.1] * 59}, "contrast", "block", id="not-a-number"),
        pytest.param({"width": [0] + [100] * 59}, "width", "block", id="no-pixels"),
        pytest.param({"label": [None] + ["cat"] * 59}, "label", "block", id="missing"),
        pytest.param({"format": ["JPEG2000"] + ["JPEG"] * 59}, "format", "warn", id="unheard-of-format"),
    ],
)
def test_impossible_features_are_found_with_the_images(
    tmp_path: Path, columns: dict[str, Any], feature: str, severity: str
) -> None:
    (finding,) = judged(tmp_path, table(60, **columns))

    assert (finding.check, finding.severity) == ("schema", severity)
    assert finding.message.startswith(f"feature {feature}: ")
    assert finding.numbers == {"images": 60, "outside": 1}
    assert finding.examples == ("0.jpg",)
    assert "schema.pbtxt disagree" in finding.fix


def test_a_missing_column_is_found(tmp_path: Path) -> None:
    rows = statistics.compute(table(60))
    del rows.datasets[0].features[[f.path.step[0] for f in rows.datasets[0].features].index("entropy")]
    (tmp_path / "stats.pb").write_bytes(statistics.to_bytes(rows))

    found = anomalies.find(tmp_path / "stats.pb", anomalies.SCHEMA)
    (finding,) = anomalies.findings(found, with_uris(table(60)), own=True)

    assert (finding.severity, finding.message) == ("block", "feature entropy: Column is completely missing")


def test_what_a_users_schema_forbids_is_as_grave_as_they_say(tmp_path: Path) -> None:
    text = """
        feature { name: "label" type: BYTES string_domain { name: "pets" value: "cat" } }
        feature { name: "format" type: BYTES domain: "formats" }
        feature { name: "width" type: INT int_domain { max: 500 } }
        string_domain { name: "formats" value: "JPEG" }
    """
    columns = {"label": ["cat"] * 58 + ["dog", "owl"], "format": ["PNG"] + ["JPEG"] * 59, "width": [600] * 2 + [9] * 58}

    found = {finding.message: finding for finding in judged(tmp_path, table(60, **columns), text)}

    assert [(finding.check, finding.severity) for finding in found.values()] == [("schema", "block")] * 3
    assert {message: finding.examples for message, finding in found.items()} == {
        "feature format: Examples contain values missing from the schema: PNG (~1%)": ("0.jpg",),
        "feature label: Examples contain values missing from the schema: dog (~1%), owl (~1%)": ("58.jpg", "59.jpg"),
        "feature width: Unexpectedly large value: 600": ("0.jpg", "1.jpg"),
    }
    assert all("validate.schema" in finding.fix for finding in found.values())


def test_what_a_users_schema_does_not_name_is_not_judged(tmp_path: Path) -> None:
    assert judged(tmp_path, table(60, width=0), committed(without="width")) == []
    (finding,) = judged(tmp_path, table(60, width=0, height=0), committed(without="width"))
    assert "height" in finding.message


def test_a_schema_of_the_whole_dataset(tmp_path: Path) -> None:
    text = 'feature { name: "width" type: INT } dataset_constraints { min_examples_count: 100 }'

    (finding,) = judged(tmp_path, table(60), text)

    assert finding.message == "The dataset has 60 examples, which is fewer than expected"


def test_a_misspelt_feature_is_an_error_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"validate\.schema: .* names widht, the features are label"):
        judged(tmp_path, table(60), 'feature { name: "widht" type: INT }')


def test_the_schema_covers_every_feature_and_every_format_that_ingest_accepts() -> None:
    schema = schemas.read(anomalies.SCHEMA)

    assert {feature.name for feature in schema.feature} == set(statistics.COLUMNS)
    domains = {domain.name: set(domain.value) for domain in schema.string_domain}
    assert set(FORMATS) <= domains["format"]


def test_a_proposal_holds_for_its_own_images_and_for_others_of_their_kind(tmp_path: Path) -> None:
    proposal, narrowed = schemas.propose(with_uris(table(300, seed=1)), schemas.read(anomalies.SCHEMA))
    text = schemas.to_text(proposal, narrowed, "run 1")

    assert judged(tmp_path, table(300, seed=1), text) == []
    assert judged(tmp_path, table(300, seed=2), text) == []
    gray, small = table(300, seed=3, saturation=0.0), table(300, seed=4, width=32)
    assert [finding.message.split(":")[0] for finding in judged(tmp_path, gray, text)] == ["feature saturation"]
    assert [finding.message.split(":")[0] for finding in judged(tmp_path, small, text)] == ["feature width"]
