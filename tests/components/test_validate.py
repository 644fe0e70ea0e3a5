from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from components import validate
from pipeline import files, runtime, stage
from pipeline.dataset import duplicate_links, manifest, store
from tests.pipeline.validation.gate import SUSPECTS, images, profile, quarantined, suspected

with runtime.quiet_imports():
    pass

ROOT = Path(__file__).parents[2]
Png = Callable[..., bytes]


def deliver(rows: pa.Table, quarantine: pa.Table, pairs: pa.Table, suspects: pa.Table) -> None:
    """What ingest and profile leave."""
    columns = {"source_version": "1", "group": None, "ingested_at": datetime.now(UTC), "notes": [], "removed": False}
    listed = rows.select(["image_id", "uri", "label", "bytes", "batch"]).to_pylist()
    accepted = pa.Table.from_pylist([row | columns for row in listed], manifest.SCHEMA)
    files.write_table(Path("data/manifest/0001.parquet"), accepted)
    files.write_table(Path("data/features/0001.parquet"), rows.drop(["uri"]))
    files.write_table(Path("data/quarantine/current.parquet"), quarantine)
    files.write_table(Path("data/duplicates/0001.parquet"), pairs)
    files.write_table(Path("data/suspects.parquet"), suspects)
    files.write_json(Path("metrics/ingest.json"), {"batches": [{"batch": "0001"}]})
    files.write_json(Path("metrics/profile.json"), profile(rows))


def test_the_evidence_of_every_input_arrives_in_the_verdict_and_on_the_page(run: Path, png: Png) -> None:
    rows = images(40, image_id=[store.put(png(number)) for number in range(40)])
    ids = rows["image_id"].to_pylist()
    pairs = pa.table({"image_id": [ids[2]], "other": [ids[0]], "earlier": [False]}, duplicate_links.SCHEMA)
    suspects = suspected([{"image_id": ids[1], "uri": "1.png", "label": "cat", "suggested": "dog"}])
    deliver(rows, quarantined(["damaged"]), pairs, suspects)

    validate.main()

    verdict = files.read_json(run / "reports/validation/verdict.json")
    assert verdict["verdict"] == "warn"
    assert {finding["check"]: finding["examples"] for finding in verdict["findings"]} == {
        "unreadable": ["cat/q0.jpg"],
        "near_duplicates": ["0.png", "2.png"],
        "suspected_labels": ["1.png"],
    }
    assert {path.name for path in (run / "reports/validation").iterdir()} == {
        "verdict.json",
        "index.html",
        "anomalies.pbtxt",
        "data_docs",
    }
    page = (run / "reports/validation/index.html").read_text()
    assert "Passed with 3 warnings" in page
    assert page.count("<img") == 3  # the pair, the suspect


def test_a_block_ends_the_process_with_one_line_and_leaves_the_evidence(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(images(label="cat"), quarantined([]), duplicate_links.SCHEMA.empty_table(), SUSPECTS.empty_table())

    with pytest.raises(SystemExit) as ended:
        stage.run(validate.main)

    assert ended.value.code == 65
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: The data cannot be trained on: found only the class 'cat', expected at least 2 classes. "
        "Fix: put the images into one folder per class and name the folder above them as the source"
    )
    assert files.read_json(run / "reports/validation/verdict.json")["verdict"] == "block"
    assert "Blocked" in (run / "reports/validation/index.html").read_text()
    assert (run / "reports/validation/data_docs/index.html").is_file()


@pytest.mark.parametrize(
    ("policy", "findings"), [("block", {"schema": "block"}), ("warn", {"schema": "warn"}), ("'off'", {})]
)
def test_the_policy_rules_over_the_schema(run: Path, policy: str, findings: dict[str, str]) -> None:
    params = (run / "params.yaml").read_text()
    (run / "params.yaml").write_text(params.replace("    schema: block", f"    schema: {policy}"))
    rows = images(saturation=[7.0] + [0.4] * 39)  # a share
    deliver(rows, quarantined([]), duplicate_links.SCHEMA.empty_table(), SUSPECTS.empty_table())

    if "block" in findings.values():
        with pytest.raises(SystemExit):
            stage.run(validate.main)
    else:
        validate.main()

    found = files.read_json(run / "reports/validation/verdict.json")["findings"]
    assert {finding["check"]: finding["severity"] for finding in found} == findings
