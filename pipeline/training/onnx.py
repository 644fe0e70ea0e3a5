"""Trained models as ONNX files."""

from __future__ import annotations

import importlib.util
import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline import files
from pipeline.errors import ModelError
from pipeline.training import export, parity

PACKAGES = ("onnx", "onnxruntime", "tf2onnx")  # the group `onnx` of pyproject.toml
OPSET = 18  # the first with and and or of bits, which the filter `contours` takes
INPUT, OUTPUT, CLASSES = "images", "probabilities", "classes"


def check() -> None:
    """Raises `ModelError` if the packages that writing takes are not installed."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ModelError(
            f"ONNX files take the packages {', '.join(PACKAGES)}; not installed: {', '.join(missing)}.",
            fix=f"pip install --constraint requirements.lock {' '.join(missing)}",
        )


def save(model: keras.Model, path: Path, examples: NDArray[np.uint8]) -> float:
    """Write `model` to `path` (.onnx), with float32 weights, and check it on real images, uint8 [N, S, S, 3].

    The graph takes `images`, uint8 [batch, S, S, 3], any number of them, and gives `probabilities`, float32
    [batch, classes]. The names of the classes are in the metadata, as a JSON list under `classes`.

    Returns the largest difference of a probability. Raises `ModelError` when packages are missing, the model cannot
    be converted or the file answers otherwise than it.
    """
    check()
    graph = _converted(model)
    _name(graph, export.class_names(model))
    files.write_bytes(path, graph.SerializeToString())
    return parity.check(path.name, parity.answering(model), answering(path), examples)


def answering(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """A function from images uint8 [N, S, S, 3] to the file's probabilities float32 [N, classes]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def class_names(path: Path) -> tuple[str, ...]:
    """The classes in the order of the file's output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return tuple(json.loads(session.get_modelmeta().custom_metadata_map[CLASSES]))


def _converted(model: keras.Model) -> Any:
    """An `onnx.ModelProto`."""
    import onnx
    import tf2onnx  # sets the level of its logger when it is imported

    logging.getLogger(tf2onnx.__name__).setLevel(logging.WARNING)  # it tells how it optimises
    images = keras.InputSpec(shape=model.input_shape, dtype="uint8", name=INPUT)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*`np.object`", category=FutureWarning)  # Keras looks whether it is
        written = Path(folder, "model.onnx")
        try:
            model.export(written, format="onnx", verbose=False, input_signature=[images], opset_version=OPSET)
        except Exception as error:
            detail = " ".join(str(error).split())
            raise ModelError(f"ONNX cannot take this model: {detail:.300}", fix="leave that form out") from error
        return onnx.load(written)


def _name(graph: Any, classes: tuple[str, ...]) -> None:
    """Give the output, the batch dimensions and the classes of a converted model their names."""
    import onnx

    converted = graph.graph.output[0].name
    for node in graph.graph.node:
        for place, name in enumerate(node.output):
            if name == converted:
                node.output[place] = OUTPUT
    graph.graph.output[0].name = OUTPUT
    for side in (graph.graph.input[0], graph.graph.output[0]):
        side.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(graph, {CLASSES: json.dumps(classes, ensure_ascii=False)})
    onnx.checker.check_model(graph)
