"""A problem that a tiny network learns in a second, in an order that follows from seed and epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.training import fitting
from pipeline.training.checkpoints import Checkpoint
from pipeline.training.fitted import Fitted
from pipeline.training.recipes import Phase

ROWS, BATCH = 64, 16
PHASE = Phase("head", epochs=5, patience=3, optimizer="sgd", learning_rate=0.05, schedule="constant", warmup=0.0)


def linear(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(rows, 4)).astype(np.float32)
    return inputs, (inputs[:, 0] > 0).astype(np.int64)


class Epochs(keras.utils.PyDataset):
    """Batches of `linear`, in the order of that epoch."""

    def __init__(self, epoch: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.epoch = epoch
        self.inputs, self.classes = linear(ROWS)
        self.inputs *= np.float32(scale)
        self.order = np.random.default_rng([0, epoch]).permutation(ROWS)

    def __len__(self) -> int:
        return ROWS // BATCH

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        rows = self.order[index * BATCH : (index + 1) * BATCH]
        return self.inputs[rows], self.classes[rows], np.ones(len(rows), np.float32)


def network(*, hidden: int = 0, dropout: float = 0.0) -> keras.Model:
    """Logits of two classes. With `hidden`: BatchNorm and dropout too."""
    keras.utils.set_random_seed(1)
    inputs = outputs = keras.Input((4,))
    if hidden:
        outputs = keras.layers.Dense(hidden, name="hidden")(outputs)
        outputs = keras.layers.BatchNormalization(name="norm")(outputs)
        outputs = keras.layers.Dropout(dropout)(keras.layers.ReLU()(outputs))
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(outputs))


def fit(
    model: keras.Model,
    phase: Phase,
    folder: Path,
    *,
    training: Any = Epochs,
    validation: Any = None,
    checkpoint: Checkpoint | None = None,
    rates: dict[str, float] | None = None,
) -> Fitted:
    return fitting.fit(
        model,
        phase,
        training,
        validation if validation is not None else linear(32, seed=1),
        images=ROWS,
        steps=ROWS // BATCH,
        batch_size=BATCH,
        label_smoothing=0.0,
        rates=rates or {},
        logs=folder / "logs",
        checkpoint=checkpoint,
    )
