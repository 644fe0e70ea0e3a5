"""What every exported form has to hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from pipeline.training import parity


def assert_as_trained(answer: Callable[[np.ndarray], Any], model: keras.Model, images: np.ndarray) -> None:
    """All of at least four images, and one alone, get the answers of the trained model, which tells them apart."""
    expected = model.predict_on_batch(images)
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(answer(images), expected, atol=parity.TOLERANCE)
    np.testing.assert_allclose(answer(images[3:4]), expected[3:4], atol=parity.TOLERANCE)
