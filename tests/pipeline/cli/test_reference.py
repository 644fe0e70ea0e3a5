from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.reference import app
from pipeline.profiling import features
from pipeline.profiling.imagenet import reference, space


def test_build_writes_the_three_files(tmp_path: Path, png: Callable[..., bytes]) -> None:
    folder, output = tmp_path / "imagenet", tmp_path / "out"
    folder.mkdir()
    for seed, width in enumerate((10, 20, 30, 40)):
        (folder / f"{seed}.JPEG").write_bytes(png(seed, width))

    done = CliRunner().invoke(app, ["build", str(folder), "--source", "four of noise", "--output", str(output)])

    assert done.exit_code == 0, done.output
    assert "4 images" in done.output
    built = reference.load(output / "reference.json")
    assert (built.images, built.source, built.features_version) == (4, "four of noise", features.VERSION)
    assert built.features["width"].median == 25
    assert space.load(output / "embeddings.npz").max_logits.shape == (4,)
    assert {path.name for path in output.iterdir()} == {"reference.json", "embeddings.npz", "statistics.pb"}


def test_a_folder_without_images_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = CliRunner().invoke(app, ["build", str(tmp_path), "--source", "none"])

    assert done.exit_code == 65
    assert "found no file" in done.output + capfd.readouterr().err
