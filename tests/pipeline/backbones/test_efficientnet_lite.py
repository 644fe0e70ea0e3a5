from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.backbones import efficientnet_lite, torch_checkpoint
from pipeline.backbones.scaling import InputScaling
from pipeline.dataset.resize import resize_uint8

# 500 images, one of every second class; their names begin with the WordNet id, and sorted ids are the class order.
SAMPLE = Path(__file__).parents[4] / "shared/data/imagenet_sample"


def test_the_genuine_weights_fill_every_layer() -> None:
    """Parameters without the classifier as published: 4 652 008 - 1281 * 1000, plus BatchNorm's statistics."""
    random = efficientnet_lite.build(32, pretrained=False)
    genuine = efficientnet_lite.build(32, pretrained=True)

    assert sum(int(np.prod(w.shape)) for w in genuine.trainable_weights) == 4_652_008 - 1281 * 1000
    unchanged = [
        weight.path
        for weight, initial in zip(genuine.weights, random.weights, strict=True)
        if np.array_equal(weight.numpy(), initial.numpy())
    ]
    assert unchanged == []


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"needs the ImageNet sample in {SAMPLE}")
def test_known_images_are_recognised() -> None:
    tensors = torch_checkpoint.load(efficientnet_lite.weights_file())
    images = keras.Input((224, 224, 3), dtype="uint8")
    features = efficientnet_lite.build(224, pretrained=True)(InputScaling("lite")(images))
    classifier = keras.layers.Dense(1000)
    model = keras.Model(images, classifier(keras.layers.GlobalAveragePooling2D()(features)))
    classifier.set_weights([tensors["_fc.weight"].T, tensors["_fc.bias"]])
    model.compile(jit_compile=False)

    numbers = np.arange(0, 500, 5)
    paths = sorted(SAMPLE.glob("*.JPEG"))
    pictures = np.stack([_central(paths[number]) for number in numbers])
    answers = model.predict(pictures, verbose=0, batch_size=50).argmax(axis=1)

    assert np.mean(answers == 2 * numbers) >= 0.84  # 0.888 on all 500


def _central(path: Path) -> np.ndarray:
    """The central 7/8 of the shorter side, the crop that EfficientNet is evaluated on."""
    image = tf.io.decode_image(path.read_bytes(), channels=3, expand_animations=False)
    height, width = image.shape[:2]
    side = round(min(height, width) * 0.875)
    top, left = (height - side) // 2, (width - side) // 2
    return resize_uint8(image[top : top + side, left : left + side], 224).numpy()
