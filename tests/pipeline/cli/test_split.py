"""`refit split show` on what the shard stage leaves, written without its TFRecords."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeline import files
from pipeline.cli.main import app
from pipeline.dataset import assignment, duplicate_links, manifest, split_summary, splits
from pipeline.dataset.splits import TEST, TRAIN, Image, Placed, Shares
from pipeline.settings import code_root, read_params
from pipeline.stage import DONE

SHARES = Shares("refit-1", 0.15, 0.15, 2)
Show = Callable[..., Result]


def identity(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Show:
    monkeypatch.setenv("PATH", os.environ["PATH"])  # the command sets it

    def run(*arguments: str, columns: int = 120) -> Result:
        monkeypatch.setenv("COLUMNS", str(columns))
        return CliRunner().invoke(app, ["split", "show", *arguments])

    return run


def write(folder: Path, *, conflicts: int = 1) -> None:
    """100 cats, 30 dogs of ten owners, 9 birds of two nests; cats 0 … were placed in train, the last one in test,
    and have come to share a group.
    """
    images = [Image(identity(n), "cat", "wrong" if n < conflicts or n == 99 else None) for n in range(100)]
    images += [Image(identity(n), "dog", f"owner {n % 10}") for n in range(100, 130)]
    images += [Image(identity(n), "bird", f"nest {n < 133}") for n in range(130, 139)]
    rows = pa.Table.from_pylist(
        [
            {
                "image_id": image.image_id,
                "uri": f"/photos/{image.label}/{number} [x]\x1b.jpg",
                "label": image.label,
                "group": image.user_group,
                "batch": "0001",
                "removed": False,
            }
            for number, image in enumerate(images)
        ],
        manifest.SCHEMA,
    )
    files.write_table(folder / "data/manifest/0001.parquet", rows)
    pairs = pa.table({"image_id": [identity(51)], "other": [identity(50)], "earlier": [False]}, duplicate_links.SCHEMA)
    files.write_table(folder / "data/duplicates/0001.parquet", pairs)
    links = duplicate_links.read(folder / "data/duplicates")
    early = {identity(n): Placed(identity(n), TEST if n == 99 else TRAIN) for n in (*range(conflicts), 99)}
    assignment.record(folder / "data/splits/0001.parquet", early, SHARES.salt)
    new = splits.place(images, links.pairs, early, SHARES, links.cluster)
    assignment.record(folder / "data/splits/0002.parquet", new, SHARES.salt)
    used = early | new | splits.withheld(images, links.pairs, early | new, links.cluster)
    groups = splits.current_groups(images, links.pairs, used, links.cluster)
    table = assignment.assign(rows, used, groups, ("bird", "cat", "dog"), 3)
    files.write_table(folder / "data/assignment.parquet", table)
    files.write_json(folder / "metrics/shard.json", split_summary.summary(table, SHARES, new))
    files.write_text(folder / DONE / "shard", "")
    record = {"run_id": folder.name, "model": "pets", "status": "refused", "created_at": "2026-03-01T02:15:00+00:00"}
    files.write_json(folder / "run.json", record)
    files.write_text(folder / "params.yaml", yaml.safe_dump(read_params(code_root() / "params.yaml")))


@pytest.mark.parametrize("columns", [80, 120])
def test_the_overview_fits_and_names_what_is_missing(show: Show, refit_home: Path, columns: int) -> None:
    write(refit_home / "runs/first")
    done = show(columns=columns)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    # Of 99 cats 14.85 are wanted, of 30 dogs 4.5, in groups of three.
    assert ["test", "18", "13.0%", "15.0%", "16"] in lines
    assert ["cat", "69", "15", "15", "1"] in lines
    assert ["dog", "24", "3", "3", "0"] in lines
    assert "class 'dog': 3 test images where 15% are 4.5: its 30 images are 10 groups, of up to 3 images" in done.output
    assert "class 'bird': 0 of 2 wanted test images: its 9 images are 2 groups" in done.output
    assert "1 image in quarantine" in done.output
    assert r"/photos/cat/0 [x]\x1b.jpg  train image, in one group with a test image" in done.output
    assert "\x1b" not in done.output
    table = [line for line in done.output.splitlines() if not line.startswith(("  ", "Run", "100%"))]
    assert max(map(len, table)) <= columns


def test_where_one_image_is(show: Show, refit_home: Path) -> None:
    write(refit_home / "runs/first")
    withheld = show(identity(0)).output
    assert "reason      train image, in one group with a test image" in withheld
    assert "placed      train, by the run that brought batch 0001" in withheld
    assert r"linked to   /photos/cat/99 [x]\x1b.jpg (test, group)" in withheld
    copied = show(r"/photos/cat/51 [x]\x1b.jpg").output
    assert r"with it  /photos/cat/50 [x]\x1b.jpg (cat)" in copied
    assert "by the run that brought batch 0002" in copied
    assert "no other image" in show("/photos/cat/60 [x]\x1b.jpg").output


def test_quarantine_is_cut_unless_all_is_asked_for(show: Show, refit_home: Path) -> None:
    write(refit_home / "runs/first", conflicts=7)
    assert "and 2 more: refit split show --quarantined" in show().output
    everything = show("--quarantined").output
    assert everything.count("train image, in one group with a test image") == 7
    assert "more:" not in everything


def test_what_cannot_be_shown_says_why(show: Show, refit_home: Path) -> None:
    assert "found none (runs)" in show().stderr
    write(refit_home / "runs/first")
    assert "found none (runs of model 'birds')" in show("--model", "birds").stderr
    assert "got nowhere.jpg" in show("nowhere.jpg").stderr
    assert "image ids" in show("0" * 60).stderr
    assert show(identity(3)[:64], "--run", "first").exit_code == 0
    files.write_json(refit_home / "runs/first/metrics/shard.json", {"images": {}})
    old = show()
    assert (old.exit_code, "an earlier Refit" in old.stderr) == (65, True)
