from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import files
from pipeline.backbones import registry
from pipeline.settings import Serve
from pipeline.training import export
from tests.pipeline.serving import docker_stand_in, exported
from tests.pipeline.training import tiny

DEFAULTS = Serve(
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

    settings = DEFAULTS.model_copy(update=changes)
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


def test_answers_other_than_the_measured_models_are_a_finding(run: Path) -> None:
    """The SavedModel of another training: every file is whole, and the wrong model would be served."""
    other = tiny.make().whole  # its head is untrained: a third for each class
    shutil.rmtree(run / "models/final/saved_model")
    export.save_serving(other, run / "models/final/saved_model", tiny.pictures(4)[0])
    fresh = rehearse(run)["fresh_process"]
    assert fresh["status"] == "failed"
    assert min(fresh["max_difference"], fresh["bytes_difference"]) > 0.01
    assert "serving_default: the answers differ" in fresh["reason"]
    assert "encoded: the answers differ" in fresh["reason"]


def test_classes_in_another_order_are_a_finding(run: Path) -> None:
    table = exported.answered(run)
    shuffled = [row["probabilities"][::-1] for row in table.to_pylist()]
    place = table.schema.get_field_index("probabilities")
    column = pa.array(shuffled, table.schema.field("probabilities").type)
    files.write_table(run / "data/predictions.parquet", table.set_column(place, "probabilities", column))
    fresh = rehearse(run)["fresh_process"]
    assert (fresh["status"], fresh["same_answers"]) == ("failed", False)
    assert "data/predictions.parquet" in fresh["reason"]


def test_a_saved_model_that_cannot_be_loaded_is_a_finding(run: Path) -> None:
    (run / "models/final/saved_model/saved_model.pb").write_bytes(b"cut off")
    found = rehearse(run)
    assert found["fresh_process"]["status"] == "failed"
    assert "status 1" in found["fresh_process"]["reason"]
    assert found["latency"] == {"cpu": None, "gpu": None}
    assert found["input_contract"]["passed"]  # of model.keras, which is whole
    files.write_json(run / "metrics/serving.json", found)


def test_a_process_that_hangs_is_a_finding(run: Path) -> None:
    fresh = rehearse(run, timeout=0.5)["fresh_process"]
    assert (fresh["status"], fresh["max_difference"]) == ("failed", None)
    assert "not answered after" in fresh["reason"]


def test_without_a_test_set_other_images_are_answered(run: Path) -> None:
    table = exported.answered(run)
    rows = [row for row in table.to_pylist() if row["source"] != "test"]
    files.write_table(run / "data/predictions.parquet", pa.Table.from_pylist(rows, table.schema))
    fresh = rehearse(run)["fresh_process"]
    assert (fresh["status"], fresh["images"]) == ("passed", 8)


class TestContainer:
    @pytest.fixture
    def docker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        docker_stand_in.install(tmp_path / "docker", monkeypatch, images=("serving:1", "broken:1", "mute:1"))
        return tmp_path / "docker"

    def of(self, run: Path, **changes: Any) -> dict[str, Any]:
        found: dict[str, Any] = rehearse(run, **{"container": "auto", "image": "serving:1"} | changes)["container"]
        return found

    def test_its_answers_are_compared(self, run: Path, docker: Path) -> None:
        found = self.of(run)
        assert (found["status"], found["reason"], found["image"]) == ("passed", None, "serving:1")
        assert found["max_difference"] < found["tolerance"] == 1e-4
        assert docker_stand_in.containers(docker) == []

    @pytest.mark.parametrize(
        ("image", "timeout", "words"),
        [
            ("broken:1", 60.0, "ended before the model was available.*cannot open shared object"),
            ("mute:1", 2.0, "not available after 2 seconds"),
        ],
    )
    def test_one_that_does_not_serve_the_model_is_a_finding(
        self, run: Path, docker: Path, image: str, timeout: float, words: str
    ) -> None:
        found = self.of(run, image=image, timeout=timeout)
        assert (found["status"], found["max_difference"]) == ("failed", None)
        assert re.search(words, found["reason"])
        assert docker_stand_in.containers(docker) == []

    def test_without_docker_or_image_it_is_skipped_unless_required(
        self, run: Path, docker: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = self.of(run, image="other:1")
        assert (found["status"], "serve.pull is false" in found["reason"]) == ("skipped", True)
        monkeypatch.setenv("PATH", str(docker / "empty"))
        found = self.of(run, container="required")
        assert (found["status"], "no docker command" in found["reason"]) == ("failed", True)
