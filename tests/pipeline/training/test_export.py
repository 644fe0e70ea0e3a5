from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline.dataset.resize import resize_uint8
from pipeline.errors import ModelError
from pipeline.training import export
from tests.pipeline.training import tiny


@pytest.fixture
def whole() -> keras.Model:
    model = tiny.make()
    model.head.get_layer("logits").set_weights([np.random.default_rng(0).normal(size=(8, 3)), np.zeros(3)])
    return model.whole


def test_a_saved_model_answers_as_before_and_knows_its_classes(tmp_path: Path, whole: keras.Model) -> None:
    images, _, _ = tiny.pictures(5)

    export.save(whole, tmp_path / "model.keras", images)
    loaded = export.load(tmp_path / "model.keras")

    np.testing.assert_allclose(loaded.predict_on_batch(images), whole.predict_on_batch(images), atol=1e-6)
    assert export.class_names(loaded) == tiny.CLASSES


def test_a_model_whose_file_answers_otherwise_is_refused(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="test")
    class Forgetful(keras.layers.Layer):
        """Loses its bias on the way to the file."""

        bias: Any = 0.0

        def call(self, inputs: Any) -> Any:
            return keras.ops.cast(inputs[:, 0, 0, :], "float32") + self.bias

    inputs = keras.Input((4, 4, 3), dtype="uint8")
    layer = Forgetful()
    layer.bias = 0.5
    model = keras.Model(inputs, layer(inputs))

    with pytest.raises(ModelError, match=r"model\.keras: expected.*within 0\.0001.*differ by 0\.5"):
        export.save(model, tmp_path / "model.keras", np.zeros((2, 4, 4, 3), np.uint8))


@pytest.mark.parametrize("content", [None, b"", b"no model"], ids=["missing", "empty", "not a model"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.keras"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ModelError, match=r"model\.keras"):
        export.load(path)


def test_code_in_a_model_file_is_not_run(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(tmp_path / "model.keras")

    with pytest.raises(ModelError, match=r"[Ll]ambda"):
        export.load(tmp_path / "model.keras")


def test_the_served_model_takes_images_and_encoded_files(tmp_path: Path, whole: keras.Model) -> None:
    images, _, _ = tiny.pictures(3)
    photo = np.random.default_rng(2).integers(0, 256, (40, 25, 3), np.uint8)
    grey = photo[..., 0]
    files = [_encoded(photo, "PNG"), _encoded(grey, "PNG"), _encoded(photo, "BMP"), _encoded(grey, "GIF")]
    squares = [resize_uint8(photo, tiny.SIZE), resize_uint8(np.repeat(grey[..., None], 3, 2), tiny.SIZE)] * 2

    export.save_serving(whole, tmp_path / "served", images)
    served = tf.saved_model.load(str(tmp_path / "served"))

    by_image = served.signatures["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(by_image, whole.predict_on_batch(images), atol=1e-5)
    by_file = served.signatures["encoded"](encoded=tf.constant(files))["probabilities"]
    np.testing.assert_allclose(by_file, whole.predict_on_batch(np.stack(squares)), atol=1e-5)


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()
