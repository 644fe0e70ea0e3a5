from __future__ import annotations

import keras
import numpy as np
import pytest

from pipeline.training.losses import SmoothedCrossentropy, accuracy


@pytest.mark.parametrize(
    ("smoothing", "expected"),
    [(0.0, -np.log(0.75)), (0.2, -(0.9 * np.log(0.75) + 0.1 * np.log(0.25)))],
    ids=["plain", "smoothed"],
)
def test_the_loss_of_known_probabilities(smoothing: float, expected: float) -> None:
    logits = np.log([[0.25, 0.75], [0.75, 0.25]]).astype(np.float32)

    loss = SmoothedCrossentropy(smoothing)(np.array([1, 0]), logits)

    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_mixed_images() -> None:
    """Targets [0.3, 0.7] become 0.8 * [0.3, 0.7] + 0.1 = [0.34, 0.66]."""
    logits = np.log([[0.25, 0.75]]).astype(np.float32)

    loss = SmoothedCrossentropy(0.2)(np.array([[0.3, 0.7]], np.float32), logits)

    assert float(loss) == pytest.approx(-(0.34 * np.log(0.25) + 0.66 * np.log(0.75)), rel=1e-5)


def test_accuracy_of_classes_and_of_mixed_images() -> None:
    logits = np.array([[2, 1, 0], [0, 1, 2], [0, 3, 1]], np.float32)  # classes 0, 2 and 1
    mixed = np.array([[0.4, 0.6, 0], [0.1, 0, 0.9], [0, 1, 0]], np.float32)

    def hits(classes: np.ndarray) -> list[float]:
        return keras.ops.convert_to_numpy(accuracy(classes, logits)).tolist()

    assert hits(np.array([0, 1, 1])) == [1, 0, 1]
    assert hits(np.array([[0], [1], [1]])) == [1, 0, 1]
    assert hits(mixed) == [0, 1, 1]


def test_weights_of_images_weigh_their_loss() -> None:
    logits = np.log([[0.5, 0.5], [0.75, 0.25]]).astype(np.float32)

    loss = SmoothedCrossentropy(0.0)(np.array([0, 0]), logits, sample_weight=np.array([2.0, 0.0], np.float32))

    assert float(loss) == pytest.approx(np.log(2), rel=1e-5)  # mean of 2 ln 2 and 0
