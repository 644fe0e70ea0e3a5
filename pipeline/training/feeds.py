"""What a phase trains on: rows that were kept of frozen blocks, or images that are read and altered anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.training import views
from pipeline.training.classifier import Classifier
from pipeline.training.devices import Devices
from pipeline.training.frozen import Given
from pipeline.training.losses import SmoothedCrossentropy
from pipeline.training.part_images import PartImages
from pipeline.training.recipes import Phase
from pipeline.training.views import Alteration, Shuffled


@dataclass(frozen=True)
class Feed:
    """`model`: inputs to logits. `training(epoch)` gives its batches from that epoch on, `steps` in each. `validation`:
    (inputs, classes) as arrays, or batches of them. `images`: in an epoch, repeated ones too. `importance`: float32
    [classes], what an image of each counts."""

    model: keras.Model
    training: Callable[[int], Any]
    validation: Any
    images: int
    steps: int
    importance: NDArray[np.float32]

    def answers(self, batch_size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Logits [N, K] of the validation images with the weights that the model has now, and their classes [N]."""
        inputs, classes = self.validation if isinstance(self.validation, tuple) else (self.validation, None)
        if classes is None:
            classes = np.concatenate([found for _, found in inputs.as_numpy_iterator()])
        self.model.compile(jit_compile="auto")  # uncompiled, Keras predicts through XLA, on a CPU 20 times slower
        return self.model.predict(inputs, batch_size=batch_size, verbose=0)[: len(classes)], classes

    def losses(self, batch_size: int, smoothing: float) -> NDArray[np.float32]:
        """Float32 [N]: the loss of each validation image, as it counts, with the weights that the model has now."""
        logits, classes = self.answers(batch_size)
        losses = keras.ops.convert_to_numpy(SmoothedCrossentropy(smoothing).call(classes, logits))
        counted: NDArray[np.float32] = losses * self.importance[classes]
        return counted


def kept(
    model: Classifier, blocks: int, given: Given, images: PartImages, phase: Phase, *, batch_size: int, seed: int
) -> Feed:
    """Of rows. An epoch on features takes every view of every image: it costs next to nothing."""
    numbers, weights, importance = _classes(images, phase)
    passes = 1 if blocks else len(next(iter(given.learned.values())))

    def training(epoch: int) -> Any:
        return Shuffled(
            given.learned,
            numbers,
            weights,
            batch_size=batch_size,
            seed=seed,
            passes=passes,
            balanced=phase.class_balance == "sampling",
            epoch=epoch,
        )

    held_out = {name: rows.view(0) for name, rows in given.checked.items()}
    validation = (held_out, np.array([item.number for item in images.roles.checked]))
    count = len(numbers) * passes
    return Feed(model.cut(blocks).upper, training, validation, count, max(1, count // batch_size), importance)


def online(
    model: Classifier,
    blocks: int,
    alteration: Alteration,
    images: PartImages,
    phase: Phase,
    *,
    batch_size: int,
    devices: Devices,
) -> Feed:
    """Of images. Every worker measures on all validation images, since it cannot know how many would be its own."""
    numbers, weights, importance = _classes(images, phase)
    pieces = model.cut(blocks)
    pictures = keras.Input(model.whole.input.shape[1:], dtype="uint8")
    trained = views.altering(keras.Model(pictures, pieces.upper(pieces.lower(pictures))), alteration)
    count = len(numbers)
    steps = max(1, count // batch_size)
    size = devices.share(devices.batch_size(min(batch_size, count)))

    def training(epoch: int) -> Any:
        endless = images.endless(
            alteration,
            batch_size=size,
            balanced=phase.class_balance == "sampling",
            first_epoch=epoch,
            worker=devices.worker,
        )
        return views.online(endless, weights, alteration, first_step=epoch * steps)

    number = devices.even(len(images.roles.val))
    held_out = images.of_view(0, images.roles.val, alteration, "val").take(number)
    validation = views.unaltered(held_out, number, alteration, batch_size=batch_size)
    return Feed(trained, training, validation, count, steps, importance)


def _classes(images: PartImages, phase: Phase) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Class of every training image, copies included; of every class the weight in the loss, and what its images count
    when phases are compared: rare classes as much as others, wherever the phase sees to it that they do in training."""
    numbers = np.array([item.number for item in images.roles.learned])
    even = views.class_weights(numbers, len(images.index.classes), balanced=False)
    balanced = views.class_weights(numbers, len(images.index.classes), balanced=True)
    weights = balanced if phase.class_balance == "weights" else even
    return numbers, weights, even if phase.class_balance == "none" else balanced
