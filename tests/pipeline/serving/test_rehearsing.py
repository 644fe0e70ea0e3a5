from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.backbones import registry
from pipeline.settings import Serve
from tests.pipeline.serving import exported
from tests.pipeline.training import tiny

with_defaults = Serve(
    images=8, calls=5, seconds=5, timeout=120, container="never", image="tensorflow/serving:none", pull=False
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFIT_HOME", str(folder / "home"))
        exported.write(folder)
    return folder


@pytest.fixture
def run(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that may be broken, of a model whose backbone the registry knows."""
    monkeypatch.setattr(registry, "get", lambda name: tiny.ENTRY)
    shutil.copytree(written, tmp_path / "run")
    return tmp_path / "run"


def rehearse(run: Path, **changes: Any) -> dict[str, Any]:
    from pipeline.serving.rehearsing import rehearse as carry_out

    settings = with_defaults.model_copy(update=changes)
    return carry_out(run / "models/final", run / "data/shards", exported.answered(run), settings, run=run)


def test_a_good_model_passes_and_is_measured(run: Path) -> None:
    found = rehearse(run)

    fresh = found["fresh_process"]
    assert (fresh["status"], fresh["reason"], fresh["images"]) == ("passed", None, 3)
    assert max(fresh["max_difference"], fresh["bytes_difference"]) < 1e-5
    assert fresh["same_answers"]
    assert fresh["same_classes"]
    assert 0 < fresh["load_seconds"] < 60
    assert 100 < fresh["peak_memory_mib"] < 4000  # TensorFlow alone takes 200
    assert found["model_digest"] == files.sha256(run / "models/final/model.keras")
    for size in ("1", "32"):
        timed = found["latency"]["cpu"][size]
        assert 0 < timed["p50_ms"] <= timed["p99_ms"]
        assert timed["calls"] == 5
        assert timed["images_per_second"] > 0
    assert found["container"]["status"] == "skipped"
    assert found["input_contract"]["passed"], found["input_contract"]["detail"]
    assert found["input_contract"]["scaling"] == "tf"
    assert found["size"]["keras_bytes"] == (run / "models/final/model.keras").stat().st_size
    files.write_json(run / "metrics/serving.json", found)  # no NaN
