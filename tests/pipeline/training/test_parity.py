from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import ModelError
from pipeline.training import parity
from tests.pipeline.training import tiny


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny.make().whole


def test_the_largest_difference_of_any_probability_is_returned(model: keras.Model) -> None:
    images, _, _ = tiny.pictures(4)
    other = model.predict_on_batch(images)
    other[2, 1] -= 9e-5
    other[3, 0] += 3e-5

    assert parity.check("other", model.predict_on_batch, lambda _: other, images) == pytest.approx(9e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda answers: answers + np.array([1.1e-4, 0, 0]), "differ by 0.00011"),
        (lambda answers: answers * np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 1), "differ by nan"),
        (lambda answers: answers[:, ::-1] + 0.2, "differ by 0.2"),
        (lambda answers: answers[:1], r"expected probabilities \[4, 3\], got \[1, 3\]"),
        (lambda answers: answers.sum(axis=1), r"expected probabilities \[4, 3\], got \[4\]"),
    ],
    ids=["one class a little", "no number", "shifted", "one image", "one number"],
)
def test_other_answers_are_refused(model: keras.Model, change: Any, problem: str) -> None:
    images, _, _ = tiny.pictures(4)

    with pytest.raises(ModelError, match=f"other form: .*{problem}"):
        parity.check("other form", model.predict_on_batch, lambda seen: change(model.predict_on_batch(seen)), images)


def test_no_images_prove_nothing(model: keras.Model) -> None:
    images, _, _ = tiny.pictures(0)

    with pytest.raises(ModelError, match="other form: expected images"):
        parity.check("other form", model.predict_on_batch, model.predict_on_batch, images)


def test_answers_are_compared_in_full_precision(model: keras.Model) -> None:
    images, _, _ = tiny.pictures(1)
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    assert enabled()  # as on a GPU, where multiplying then loses 13 bits
    seen = []

    def answer(images: np.ndarray) -> np.ndarray:
        seen.append(enabled())
        return model.predict_on_batch(images)

    parity.check("other form", answer, answer, images)

    assert seen == [False, False]
    assert enabled()
