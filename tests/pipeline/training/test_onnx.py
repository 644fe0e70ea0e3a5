from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from pipeline.errors import ModelError
from pipeline.settings import Filter
from pipeline.training import onnx
from tests.pipeline.training import answering, tiny


@pytest.mark.parametrize("filters", [[], ["edges"], ["contours"], ["clahe", "grayscale"]], ids=str)
def test_a_file_takes_any_number_of_images_and_names_what_it_has(tmp_path: Path, filters: list[Filter]) -> None:
    model = tiny.trained(filters=filters).whole
    images, _, _ = tiny.pictures(5)

    onnx.save(model, tmp_path / "model.onnx", images)
    answer = onnx.answering(tmp_path / "model.onnx")

    answering.assert_as_trained(answer, model, images)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    described = [(side.name, side.shape, side.type) for side in session.get_inputs() + session.get_outputs()]
    assert described == [
        ("images", ["batch", tiny.SIZE, tiny.SIZE, 3], "tensor(uint8)"),
        ("probabilities", ["batch", 3], "tensor(float)"),
    ]
    assert onnx.class_names(tmp_path / "model.onnx") == tiny.CLASSES


def test_packages_that_are_missing_are_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.check()
    monkeypatch.setattr(onnx, "PACKAGES", ("onnx", "a_package_that_is_missing"))

    with pytest.raises(ModelError, match=r"not installed: a_package_that_is_missing.* Fix: pip install .*_missing$"):
        onnx.save(tiny.make().whole, tmp_path / "model.onnx", tiny.pictures(1)[0])
