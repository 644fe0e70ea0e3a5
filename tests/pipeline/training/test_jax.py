from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import settings
from tests.pipeline.training import jax_script, workspace


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_training_runs_under_jax_and_images_are_altered_as_under_tensorflow(tmp_path: Path) -> None:
    table = workspace.write(tmp_path)
    folder = tmp_path / "data/shards"
    chosen = [row for row in table.to_pylist() if row["split"] == "train"]
    (folder / "classes.txt").write_text("\n".join(f"{row['image_id']} {row['class']}" for row in chosen))
    command = [sys.executable, "-m", "tests.pipeline.training.jax_script", str(tmp_path), str(tmp_path / "pixels.npz")]

    done = subprocess.run(
        command,
        cwd=settings.code_root(),
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "REFIT_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "pixels.npz") as found:
        for name, expected in jax_script.pixels().items():
            difference = np.abs(found[name].astype(int) - expected)
            assert difference.max() <= 1, name  # a value may round up on one side and down on the other
            assert np.mean(difference > 0) < 0.001, name
