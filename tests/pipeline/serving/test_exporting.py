from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import ModelError, SettingsError
from pipeline.serving import exporting
from pipeline.training import export, lite, onnx
from tests.pipeline.serving import published
from tests.pipeline.training import tiny


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFIT_HOME", str(folder / "home"))
        return published.publish(folder / "content")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("form", ["keras", "saved_model", "tflite", "onnx"])
def test_what_is_written_answers_as_the_version_does(version: Path, tmp_path: Path, form: str) -> None:
    target = tmp_path / f"out.{form}"
    assert exporting.write(version, form, target) < 1e-5
    assert names(tmp_path) == [target.name]
    images = tiny.pictures(4)[0]
    match form:
        case "keras":
            answers = export.load(target.rename(tmp_path / "out.keras")).predict_on_batch(images)
        case "saved_model":
            signature = tf.saved_model.load(str(target)).signatures["serving_default"]
            answers = signature(images=tf.constant(images))["probabilities"].numpy()
        case "tflite":
            answer = lite.answering(target)
            answers = np.concatenate([answer(image[None]) for image in images])
        case _:
            answers = onnx.answering(target)(images)
    np.testing.assert_allclose(answers, tiny.trained().whole.predict_on_batch(images), atol=1e-4)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_nothing_is_overwritten(version: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    match kind:
        case "file":
            target.write_text("mine")
        case "folder":
            target.mkdir()
        case _:
            target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="nothing is overwritten"):
        exporting.write(version, "keras", target)
    assert names(tmp_path) == ["out"]
    with pytest.raises(SettingsError, match="expected a folder"):
        exporting.write(version, "keras", tmp_path / "no/where")


def test_a_form_that_answers_otherwise_leaves_nothing(version: Path, tmp_path: Path) -> None:
    """A version whose TensorFlow Lite file is another model's."""
    folder = tmp_path / "version"
    folder.mkdir()
    (folder / "model.keras").write_bytes((version / "model.keras").read_bytes())
    lite.save(tiny.make().whole, folder / "model.tflite", tiny.pictures(4)[0])
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="tflite: expected the trained model's probabilities"):
        exporting.write(folder, "tflite", tmp_path / "out/model.tflite")
    assert names(tmp_path / "out") == []
