"""Names of classes within a TensorFlow Lite file, where readers look for them.

The format is that of TFLite Metadata (metadata_schema.fbs, identifier M001), which MediaPipe Tasks and the Android and
iOS libraries read: a flatbuffer within the model tells what its input and output are and which file has the labels;
that file is in a ZIP archive at the end of the model's. Numbers below are the schema's places of fields.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema

LABELS = "labels.txt"

_FIELD, _IDENTIFIER, _MODEL_IDENTIFIER = "TFLITE_METADATA", b"M001", b"TFL3"
_AXIS_LABELS = 2  # AssociatedFileType: names along the last axis of a tensor
_IMAGE, _RGB = 2, 1  # ContentProperties and ColorSpaceType


def add(model: bytes, classes: Sequence[str]) -> bytes:
    """A TensorFlow Lite model with one input, an image, and one output, to the same with the names of the classes.

    The result is a ZIP archive too, with `labels.txt`: a class a line in the order of the output.
    """
    parts = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    parts.buffers.append(_buffer(_description()))
    parts.metadata = [*(parts.metadata or []), _entry(len(parts.buffers) - 1)]
    builder = flatbuffers.Builder(len(model))
    builder.Finish(parts.Pack(builder), _MODEL_IDENTIFIER)

    described = io.BytesIO()
    described.write(builder.Output())
    with zipfile.ZipFile(described, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS), "".join(f"{name}\n" for name in classes))
    return described.getvalue()


def _buffer(content: bytes) -> schema.BufferT:
    buffer = schema.BufferT()
    buffer.data = list(content)
    return buffer


def _entry(buffer: int) -> schema.MetadataT:
    entry = schema.MetadataT()
    entry.name, entry.buffer = _FIELD, buffer
    return entry


def _description() -> bytes:
    """A ModelMetadata."""
    builder = flatbuffers.Builder(512)

    builder.StartObject(2)  # ImageProperties
    builder.PrependInt8Slot(0, _RGB, 0)
    properties = builder.EndObject()
    builder.StartObject(3)  # Content
    builder.PrependUint8Slot(0, _IMAGE, 0)
    builder.PrependUOffsetTRelativeSlot(1, properties, 0)
    content = builder.EndObject()
    images = _table(builder, {0: builder.CreateString("images"), 3: content})  # TensorMetadata

    name = builder.CreateString(LABELS)
    builder.StartObject(5)  # AssociatedFile
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependInt8Slot(2, _AXIS_LABELS, 0)
    labels = _vector(builder, builder.EndObject())
    probabilities = _table(builder, {0: builder.CreateString("probabilities"), 6: labels})  # TensorMetadata

    sides = {2: _vector(builder, images), 3: _vector(builder, probabilities)}
    graph = _vector(builder, _table(builder, sides))  # SubGraphMetadata
    builder.Finish(_table(builder, {3: graph, 7: builder.CreateString("1.0.0")}), _IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: flatbuffers.Builder, fields: dict[int, int]) -> int:
    """A table with references in some of its places."""
    builder.StartObject(max(fields) + 1)
    for place, reference in fields.items():
        builder.PrependUOffsetTRelativeSlot(place, reference, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, reference: int) -> int:
    """A vector with one reference in it."""
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(reference)
    return int(builder.EndVector())
