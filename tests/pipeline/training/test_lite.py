from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from flatbuffers.number_types import Int8Flags
from flatbuffers.table import Table
from tensorflow.lite.python import schema_py_generated as schema

from pipeline.errors import SettingsError
from pipeline.settings import Filter
from pipeline.training import lite
from tests.pipeline.training import answering, tiny


@pytest.mark.parametrize("filters", [[], ["grayscale"], ["edges"], ["clahe", "grayscale"]], ids=str)
def test_a_file_takes_any_number_of_images_and_names_the_classes(tmp_path: Path, filters: list[Filter]) -> None:
    model = tiny.trained(filters=filters).whole
    images, _, _ = tiny.pictures(5)

    lite.save(model, tmp_path / "model.tflite", images)
    answer = lite.answering(tmp_path / "model.tflite")

    answering.assert_as_trained(answer, model, images)
    assert answer(images).dtype == np.float32
    with zipfile.ZipFile(tmp_path / "model.tflite") as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(tiny.CLASSES)


def test_readers_find_the_classes_through_the_metadata(tmp_path: Path) -> None:
    """The way that MediaPipe takes: model, metadata, graph, output, associated file."""
    lite.save(tiny.trained().whole, tmp_path / "model.tflite", tiny.pictures(1)[0])
    model = schema.Model.GetRootAs((tmp_path / "model.tflite").read_bytes())
    entries = {model.Metadata(number).Name(): model.Metadata(number) for number in range(model.MetadataLength())}
    found = model.Buffers(entries[b"TFLITE_METADATA"].Buffer()).DataAsNumpy().tobytes()

    def only(table: Table, place: int) -> Table:
        """The one table of the vector in a field."""
        field = table.Offset(4 + 2 * place)
        assert table.VectorLen(field) == 1
        return Table(found, table.Indirect(table.Vector(field)))

    assert found[4:8] == b"M001"
    graph = only(Table(found, int.from_bytes(found[:4], "little")), 3)
    output = only(graph, 3)
    assert output.String(output.Offset(4) + output.Pos) == b"probabilities"
    labels = only(output, 6)
    assert labels.String(labels.Offset(4) + labels.Pos) == b"labels.txt"
    assert labels.Get(Int8Flags, labels.Offset(8) + labels.Pos) == 2  # TENSOR_AXIS_LABELS
    assert only(graph, 2).Offset(4 + 2 * 3)  # the input has a content: RGB


def test_a_filter_that_cannot_be_had_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"train\.filters: contours"):
        lite.check(["grayscale", "contours"])
    with pytest.raises(SettingsError, match=r"train\.filters: contours"):
        lite.save(tiny.make(filters=["contours"]).whole, tmp_path / "model.tflite", tiny.pictures(1)[0])
    assert not (tmp_path / "model.tflite").exists()
