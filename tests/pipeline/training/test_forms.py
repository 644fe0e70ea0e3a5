from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.errors import ModelError, SettingsError
from pipeline.training import forms, lite, onnx, parity
from tests.pipeline.training import tiny


def test_all_forms_of_a_model_lie_side_by_side(tmp_path: Path) -> None:
    images, _, _ = tiny.pictures(4)

    differences = forms.write(tiny.trained().whole, tmp_path, forms.FORMS, images)

    assert {path.name for path in tmp_path.iterdir()} == differences.keys()
    assert differences.keys() == {"model.keras", "saved_model", "model.tflite", "model.onnx"}
    assert max(differences.values()) <= parity.TOLERANCE


def test_only_what_is_asked_for_is_written(tmp_path: Path) -> None:
    assert forms.write(tiny.trained().whole, tmp_path, [], tiny.pictures(2)[0]).keys() == {"model.keras"}
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_what_cannot_be_had_shows_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    forms.check(["tflite", "onnx"], ["clahe", "grayscale"])
    forms.check(["saved_model", "onnx"], ["contours"])
    with pytest.raises(SettingsError, match="contours"):
        forms.check(["tflite"], ["contours"])

    monkeypatch.setattr(onnx, "PACKAGES", ("a_package_that_is_missing",))
    forms.check(["tflite"], [])
    with pytest.raises(ModelError, match="a_package_that_is_missing"):
        forms.check(["onnx"], [])


def test_another_backend_has_tensorflow_convert_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = tiny.trained().whole, tiny.pictures(4)[0]
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")

    differences = forms.write(model, tmp_path, ["tflite"], images)

    assert {path.name for path in tmp_path.iterdir()} == differences.keys() == {"model.keras", "model.tflite"}
    answers = lite.answering(tmp_path / "model.tflite")(images)
    np.testing.assert_allclose(answers, model.predict_on_batch(images), atol=parity.TOLERANCE)


def test_what_goes_wrong_there_is_told_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = tiny.trained().whole, tiny.pictures(4)[0]
    honest = model.predict_on_batch(images)
    answers = iter([honest, honest + 0.01])  # to model.keras here, and to what TensorFlow makes of it
    monkeypatch.setattr(model, "predict_on_batch", lambda _: next(answers))
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")

    with pytest.raises(ModelError, match=r"model\.keras in TensorFlow: .*differ by 0\.01"):
        forms.write(model, tmp_path, ["tflite"], images)
