from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from pipeline import files
from pipeline.cli import schema as command
from pipeline.dataset import manifest
from pipeline.profiling import schema as schemas
from tests.pipeline.profiling.tables import table

app = typer.Typer()
app.add_typer(command.app, name="schema")


def run(home: Path, run_id: str, model: str, labels: list[str], *, profiled: bool = True) -> None:
    """A run of `model` after profile, with an image of each label."""
    folder = home / "runs" / run_id
    files.write_json(folder / "run.json", {"model": model, "created_at": run_id, "status": "failed"})
    rows = table(len(labels), label=labels)
    images = [
        {
            **{name: row[name] for name in ("image_id", "label", "batch", "bytes")},
            "uri": f"{row['label']}/{number}.jpg",
            "source_version": "1",
            "ingested_at": datetime.now(UTC),
            "notes": [],
            "removed": False,
        }
        for number, row in enumerate(rows.to_pylist())
    ]
    files.write_table(folder / "data/manifest/0001.parquet", pa.Table.from_pylist(images, schema=manifest.SCHEMA))
    files.write_table(folder / "data/features/0001.parquet", rows)
    if profiled:
        files.write_text(folder / "done/profile", "")


def propose(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["schema", "propose", *arguments], env={"COLUMNS": "200"})


def labels_of(path: Path) -> list[str]:
    schema = schemas.read(path)
    (domain,) = (domain for domain in schema.string_domain if domain.name == "label")
    return list(domain.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_newest_profiled_run_of_all_of_a_model_or_the_one_named(refit_home: Path, here: Path) -> None:
    run(refit_home, "r1", "pets", ["cat", "dog"] * 60)
    run(refit_home, "r2", "tiles", ["[b]crack[/b]", "whole"] * 60)
    run(refit_home, "r3", "tiles", ["unfinished"] * 120, profiled=False)

    newest = propose()
    assert newest.exit_code == 0, newest.output
    assert labels_of(here / "schema.pbtxt") == ["[b]crack[/b]", "whole"]
    assert "from run r2 of model tiles, 120 images" in (here / "schema.pbtxt").read_text()
    for words in ("[b]crack[/b], whole", "validate.schema", "schema.pbtxt", "brightness"):
        assert words in newest.output

    assert propose("--model", "pets", "--output", "pets.pbtxt").exit_code == 0
    assert labels_of(here / "pets.pbtxt") == ["cat", "dog"]
    assert propose("--run", "r1", "--output", "deep/r1.pbtxt").exit_code == 0
    assert labels_of(here / "deep/r1.pbtxt") == ["cat", "dog"]


def test_a_file_that_people_may_have_edited_is_not_replaced_unasked(refit_home: Path, here: Path) -> None:
    run(refit_home, "r1", "pets", ["cat", "dog"] * 60)
    (here / "schema.pbtxt").write_text("mine")

    refused = propose()
    assert (refused.exit_code, (here / "schema.pbtxt").read_text()) == (78, "mine")
    assert "--force" in refused.output
    assert propose("--force").exit_code == 0
    assert labels_of(here / "schema.pbtxt") == ["cat", "dog"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--model", "cars"], "none (runs of model 'cars')", id="no run of the model"),
        pytest.param(["--run", "r9"], "no run 'r9'", id="no such run"),
        pytest.param(["--run", "r2"], "none (run r2)", id="not profiled"),
        pytest.param(["--run", "r1", "--model", "pets"], "got both", id="both"),
    ],
)
def test_what_cannot_be_proposed_from_is_said(refit_home: Path, here: Path, arguments: list[str], words: str) -> None:
    run(refit_home, "r1", "pets", ["cat"] * 3)
    run(refit_home, "r2", "pets", ["cat"] * 3, profiled=False)

    done = propose(*arguments)

    assert done.exit_code in {65, 78}
    assert words in done.output
    assert not (here / "schema.pbtxt").exists()
