from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SettingsError
from pipeline.settings import Filter
from pipeline.training import lite
from tests.pipeline.training import tiny


@pytest.mark.parametrize("filters", [[], ["grayscale"], ["edges"], ["clahe", "grayscale"]], ids=str)
def test_a_file_takes_any_number_of_images_and_names_the_classes(tmp_path: Path, filters: list[Filter]) -> None:
    model = tiny.trained(1, filters=filters).whole
    images, _, _ = tiny.pictures(5)

    lite.save(model, tmp_path / "model.tflite", images)
    answer = lite.answering(tmp_path / "model.tflite")

    expected = model.predict_on_batch(images)
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(answer(images), expected, atol=1e-5)
    np.testing.assert_allclose(answer(images[3:4]), expected[3:4], atol=1e-5)
    assert answer(images).dtype == np.float32
    with zipfile.ZipFile(tmp_path / "model.tflite") as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(tiny.CLASSES)


def test_a_file_does_not_depend_on_when_it_was_written(tmp_path: Path) -> None:
    model = tiny.trained(1).whole
    images, _, _ = tiny.pictures(2)

    lite.save(model, tmp_path / "one.tflite", images)
    lite.save(model, tmp_path / "two.tflite", images)

    with zipfile.ZipFile(tmp_path / "one.tflite") as one, zipfile.ZipFile(tmp_path / "two.tflite") as two:
        assert [found.date_time for found in one.infolist()] == [found.date_time for found in two.infolist()]


def test_a_filter_that_cannot_be_had_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"train\.filters: contours"):
        lite.check(["grayscale", "contours"])
    with pytest.raises(SettingsError, match=r"train\.filters: contours"):
        lite.save(tiny.make(1, filters=["contours"]).whole, tmp_path / "model.tflite", tiny.pictures(1)[0])
    assert not (tmp_path / "model.tflite").exists()
