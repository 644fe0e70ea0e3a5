from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from scipy import special

from pipeline.evaluation import metrics
from pipeline.training import calibration
from tests.pipeline.training import tiny


def sampled(images: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the true probability, and classes drawn from it."""
    generator = np.random.default_rng(5)
    logits = generator.normal(scale=1.5, size=(images, classes))
    return logits, (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0], ids=["timid", "honest", "overconfident"])
def test_the_temperature_undoes_overconfidence(overconfidence: float) -> None:
    logits, classes = sampled(20000)

    found = calibration.fit(overconfidence * logits, classes)

    assert found.temperature == pytest.approx(overconfidence, rel=0.04)
    assert found.after <= found.before
    assert found.images == 20000


def test_the_calibration_error_of_other_images_falls() -> None:
    logits, classes = sampled(3000)
    temperature = calibration.fit(4 * logits[:1000], classes[:1000]).temperature

    honest = metrics.calibration_error(classes[1000:], special.softmax(4 * logits[1000:] / temperature, axis=1))
    overconfident = metrics.calibration_error(classes[1000:], special.softmax(4 * logits[1000:], axis=1))

    assert honest < 0.2 * overconfident


def test_two_classes_by_hand() -> None:
    """Of eight answers with a logit of 3 ahead six are right. Platt's target for right is 1 - 1/10, so of the mass
    0.9 * 6/8 + 0.1 * 2/8 = 0.7 lies on the answer: 3 / T = ln(0.7 / 0.3)."""
    logits = np.tile([3.0, 0.0], (8, 1))
    classes = np.array([0] * 6 + [1] * 2)

    found = calibration.fit(logits, classes)

    assert found.temperature == pytest.approx(3 / math.log(0.7 / 0.3), rel=1e-4)
    assert found.before == pytest.approx(math.log1p(math.exp(-3)) + 2 / 8 * 3)


@pytest.mark.parametrize("ahead", [0.5, 8.0], ids=["timid", "sure"])
def test_answers_that_are_all_right_do_not_ask_for_certainty(ahead: float) -> None:
    """The rule of succession: ten right answers of ten are worth a probability of 11/12, and no less than before."""
    classes = np.arange(10) % 3
    logits = ahead * np.eye(3)[classes]

    found = calibration.fit(logits, classes)

    if ahead == 0.5:
        assert math.exp(-found.after) == pytest.approx(11 / 12, abs=0.05)
    else:
        assert found == calibration.Calibration(1.0, found.before, found.before, 10)


def test_nothing_to_fit_leaves_the_model_as_it_is() -> None:
    assert calibration.fit(np.empty((0, 3)), np.empty(0, np.int64)).temperature == 1
    assert calibration.fit(np.ones((4, 1)), np.zeros(4, np.int64)).temperature == 1


def test_folding_divides_the_logits_and_changes_no_answer() -> None:
    model = tiny.trained().whole
    images, _, _ = tiny.pictures(12)
    before = keras.ops.convert_to_numpy(model(images))

    calibration.fold(model, 2.5)

    after = keras.ops.convert_to_numpy(model(images))
    expected = before ** (1 / 2.5)
    np.testing.assert_allclose(after, expected / expected.sum(axis=1, keepdims=True), rtol=1e-4)
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))
