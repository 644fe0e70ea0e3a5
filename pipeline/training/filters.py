"""Filters that images pass before the backbone, as layers of the model, so that whoever serves it applies them too.

Input: RGB, 0-255, [N, H, W, 3], of any number type; H and W static, at least 8. Output: float32 of the same shape,
0-255. The layers have no weights. They work on whole grey levels, so fractions in the input are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline.settings import Filter
from pipeline.training import equalisation, outlines

MINIMUM_SIDE = 8

# Rec. 601 luma in 1/65536, as in Pillow's conversion to "L".
_RED, _GREEN, _BLUE, _ONE = 19595, 38470, 7471, 65536


def make(names: Sequence[Filter]) -> list[keras.layers.Layer]:
    """A layer of its own for each filter, in the order of application, named as the filter."""
    return [_LAYERS[name](name=name) for name in names]


def apply(images: NDArray[np.uint8], names: Sequence[Filter]) -> NDArray[np.uint8]:
    """What a model with these filters sees, uint8 [N, H, W, 3] to the same, for people to look at."""
    filtered: Any = images
    for layer in make(names):
        filtered = layer(filtered)
    return np.rint(ops.convert_to_numpy(filtered)).astype(np.uint8)


def luma(images: Any) -> Any:
    """Rec. 601 luma, float32 [N, H, W], whole numbers 0-255: those of Pillow, whose integer sums float32 can hold."""
    levels = ops.round(ops.cast(images, "float32"))
    weighted = levels[..., 0] * _RED + levels[..., 1] * _GREEN + levels[..., 2] * _BLUE
    return ops.floor((weighted + _ONE // 2) / _ONE)


def _in_three_channels(values: Any) -> Any:
    return ops.stack([values] * 3, axis=-1)


class ImageFilter(keras.layers.Layer):
    """Images to images of the same size, in float32 whatever the precision of the model."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)

    def build(self, input_shape: Any) -> None:
        height, width, channels = input_shape[1:]
        if height is None or width is None or min(height, width) < MINIMUM_SIDE or channels != 3:
            raise ValueError(
                f"{self.name}: expected RGB images of a fixed size of at least {MINIMUM_SIDE} x {MINIMUM_SIDE}, "
                f"got {tuple(input_shape)}."
            )

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable(package="refit")
class Grayscale(ImageFilter):
    """Rec. 601 luma in all three channels."""

    def call(self, inputs: Any) -> Any:
        return _in_three_channels(luma(inputs))


@keras.saving.register_keras_serializable(package="refit")
class Edges(ImageFilter):
    """The length of Sobel's gradient of slightly smoothed luma; 255 is a full step from black to white."""

    def call(self, inputs: Any) -> Any:
        across, down = outlines.gradient(luma(inputs))
        length = ops.sqrt(outlines.square(across, down)) / outlines.UNIT
        return _in_three_channels(ops.minimum(length, 255.0))


@keras.saving.register_keras_serializable(package="refit")
class Contours(ImageFilter):
    """White lines, one pixel wide, on black, where the gradient of `Edges` peaks (Canny 1986).

    A line starts where the gradient is at least `high` and goes on while it is at least `low`, of 255. The defaults
    are a tenth and a fifth of a full step, in the ratio of 1 : 2 to 3 that Canny recommends.
    """

    def __init__(self, low: float = 25.0, high: float = 50.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def call(self, inputs: Any) -> Any:
        across, down = outlines.gradient(luma(inputs))
        drawn = outlines.lines(across, down, low=self.low, high=self.high)
        return _in_three_channels(255.0 * ops.cast(drawn, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(package="refit")
class Clahe(ImageFilter):
    """Contrast-limited adaptive histogram equalisation of luma; Cb and Cr, and with them the colours, stay.

    With Cb and Cr fixed, R, G and B all change by what luma changes by, so no conversion there and back is needed.
    """

    def __init__(self, tiles: int = 8, clip_limit: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tiles, self.clip_limit = tiles, clip_limit

    def call(self, inputs: Any) -> Any:
        before = luma(inputs)
        after = equalisation.equalise(before, tiles=self.tiles, clip_limit=self.clip_limit)
        return ops.clip(ops.round(ops.cast(inputs, "float32")) + (after - before)[..., None], 0.0, 255.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tiles": self.tiles, "clip_limit": self.clip_limit}


_LAYERS: dict[Filter, type[ImageFilter]] = {
    "grayscale": Grayscale,
    "edges": Edges,
    "contours": Contours,
    "clahe": Clahe,
}
