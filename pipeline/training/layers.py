"""The layers on top of a backbone that Keras does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="refit")
class Standardise(keras.layers.Layer):
    """(x - mean) * scale per feature, float [N, C]. Mean and scale are fixed weights, set from training features.

    Features of a backbone differ in spread by orders of magnitude; a linear classifier on standardised ones
    converges in a few epochs at one learning rate for all backbones.
    """

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[-1],)
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")
        self.scale = self.add_weight(shape=shape, initializer="ones", trainable=False, name="scale")

    def call(self, inputs: Any) -> Any:
        return (inputs - self.mean) * self.scale

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable(package="refit")
class Probabilities(keras.layers.Layer):
    """Softmax of logits [N, classes], in float32, that also carries the names of the classes in their order."""

    def __init__(self, classes: Sequence[str], **kwargs: Any) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.classes = tuple(classes)

    def call(self, inputs: Any) -> Any:
        return ops.softmax(inputs, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": list(self.classes)}
