from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline.backbones import registry
from pipeline.dataset.resize import resize_uint8
from pipeline.errors import ModelError
from pipeline.settings import Head
from pipeline.training import classifier, export, lite, onnx, parity
from pipeline.training.layers import Probabilities
from tests.pipeline.training import tiny

SAMPLE = Path(__file__).parents[4] / "shared/data/imagenet_sample"


@pytest.fixture
def whole() -> keras.Model:
    return tiny.trained().whole


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

    assert export.save_serving(whole, tmp_path / "served", images) < 1e-5
    served = tf.saved_model.load(str(tmp_path / "served"))

    by_image = served.signatures["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(by_image, whole.predict_on_batch(images), atol=1e-5)
    by_file = served.signatures["encoded"](encoded=tf.constant(files))["probabilities"]
    np.testing.assert_allclose(by_file, whole.predict_on_batch(np.stack(squares)), atol=1e-5)
    names = served.signatures["classes"]()["classes"].numpy()
    assert tuple(name.decode() for name in names) == tiny.CLASSES


@pytest.mark.parametrize("save", [export.save_serving, lite.save, onnx.save], ids=["SavedModel", "TFLite", "ONNX"])
def test_another_form_that_answers_otherwise_is_refused(tmp_path: Path, save: Callable[..., float]) -> None:
    class Shift(keras.layers.Layer):
        """Adds something to the first class wherever the model is turned into a graph."""

        by = 0.0

        def call(self, inputs: Any) -> Any:
            added = 0.0 if tf.executing_eagerly() else self.by
            return keras.ops.mean(keras.ops.cast(inputs, "float32"), axis=(1, 2)) / 255 + [added, 0.0, 0.0]

    images, _, _ = tiny.pictures(3)
    inputs, layer = keras.Input(images.shape[1:], dtype="uint8"), Shift()
    model = keras.Model(inputs, Probabilities(tiny.CLASSES, name="probabilities")(layer(inputs)))
    assert save(model, tmp_path / "model.tflite", images) < 1e-6

    layer.by = 0.001

    with pytest.raises(ModelError, match=r"model\.tflite.*: expected.*within 0\.0001.*differ by 0\.0002"):
        save(model, tmp_path / "model.tflite", images)


@pytest.fixture(scope="module")
def real() -> tuple[keras.Model, np.ndarray]:
    """A genuine network with a head, and photographs."""
    if not SAMPLE.is_dir():
        pytest.skip(f"needs the ImageNet sample at {SAMPLE}")
    entry = registry.get("efficientnet_lite0")
    backbone = registry.build(entry, weights=registry.IMAGENET, size=64)
    head = Head(pooling="blocks", normalisation="standardise", hidden=None, dropout=0.2)
    model = classifier.build(backbone, entry, classes=["ä", "b", "c", "d"], head=head)
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(SAMPLE.glob("*.JPEG"))[:16]]
    images = np.stack([resize_uint8(photo, 64) for photo in photos])
    features = model.cut(0).lower.predict_on_batch(images)[classifier.POOLED]
    classifier.standardise(model, features.mean(axis=0), features.var(axis=0))
    logits = model.whole.get_layer("logits")
    logits.set_weights([np.random.default_rng(0).normal(0, 0.02, logits.kernel.shape), np.zeros(4)])
    return model.whole, images


@pytest.mark.parametrize(
    ("save", "name"),
    [
        (export.save, "model.keras"),
        (export.save_serving, "saved_model"),
        (lite.save, "model.tflite"),
        (onnx.save, "model.onnx"),
    ],
    ids=[".keras", "SavedModel", "TFLite", "ONNX"],
)
def test_a_real_network_answers_alike_in_every_form(
    tmp_path: Path, real: tuple[keras.Model, np.ndarray], save: Callable[..., float], name: str
) -> None:
    model, photos = real
    answers = model.predict_on_batch(photos)
    assert len(set(answers.argmax(axis=1))) > 2  # a network that says one thing of everything would prove nothing

    assert save(model, tmp_path / name, photos) <= parity.TOLERANCE


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_an_exported_model_takes_uint8_and_nothing_else(tmp_path: Path, whole: keras.Model) -> None:
    """Keras would cast floats in 0-1 to black images, and say nothing."""
    images, _, _ = tiny.pictures(3)
    export.save(whole, tmp_path / "model.keras", images)

    reloaded = export.load(tmp_path / "model.keras")

    with pytest.raises(TypeError, match="Expected images as uint8 in 0-255, got float32"):
        reloaded.predict(images / np.float32(255), verbose=0)
