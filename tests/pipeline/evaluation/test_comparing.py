from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.comparing import compare, log_losses
from pipeline.evaluation.intervals import Resampling

HOW = Resampling(resamples=500, confidence=0.95, seed=5)


def run(
    truth: list[str],
    candidate: list[str],
    live: list[str],
    *,
    classes: tuple[str, ...] = ("cat", "dog"),
    live_classes: tuple[str, ...] = ("cat", "dog"),
) -> dict[str, Any]:
    labels = np.array([classes.index(name) for name in truth], np.int64)
    groups = np.arange(len(truth))
    return compare(labels, candidate, live, groups, classes=classes, live_classes=live_classes, how=HOW)


def test_numbers_by_hand() -> None:
    found = run(
        ["cat"] * 4 + ["dog"] * 2,
        ["cat", "cat", "cat", "dog", "dog", "dog"],
        ["cat", "dog", "dog", "dog", "dog", "cat"],
    )
    assert found["images"] == 6
    assert found["candidate_accuracy"] == pytest.approx(5 / 6)
    assert found["accuracy"] == pytest.approx(2 / 6)
    assert found["candidate_balanced_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["balanced_accuracy"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert found["difference"] == pytest.approx(0.5)
    assert found["difference_low"] < 0.5 < found["difference_high"]
    assert found["per_class"]["cat"]["live_recall"] == pytest.approx(1 / 4)
    assert found["per_class"]["cat"]["candidate_recall"] == pytest.approx(3 / 4)
    assert found["per_class"]["dog"]["support"] == 2


def test_pairing_makes_the_interval_narrow() -> None:
    truth = ["cat", "dog"] * 100
    wrong = ["dog" if number % 4 == 0 else name for number, name in enumerate(truth)]
    other = ["dog" if number % 4 == 2 else name for number, name in enumerate(truth)]
    same, apart = run(truth, wrong, wrong), run(truth, wrong, other)
    assert same["difference"] == apart["difference"] == 0
    assert same["difference_high"] - same["difference_low"] < 0.2 * (apart["difference_high"] - apart["difference_low"])


def test_a_clear_loss_excludes_zero_and_a_flip_of_one_image_does_not() -> None:
    truth = ["cat"] * 60 + ["dog"] * 60
    found = run(truth, ["cat"] * 60 + ["cat"] * 30 + ["dog"] * 30, truth)
    assert found["difference_high"] < 0
    assert found["per_class"]["dog"]["difference_high"] < -0.3
    assert found["per_class"]["cat"]["difference_low"] < 0 <= found["per_class"]["cat"]["difference_high"]
    single = run(["cat"] * 30 + ["dog"], ["cat"] * 31, ["cat"] * 30 + ["dog"])
    assert single["per_class"]["dog"]["difference_high"] > 0


def test_a_class_new_to_live_is_wrong_for_live() -> None:
    found = run(["cat", "elk"], ["cat", "elk"], ["cat", "dog"], classes=("cat", "elk"))
    assert found["new_classes"] == ["elk"]
    assert found["dropped_classes"] == ["dog"]
    assert found["per_class"]["elk"]["live_recall"] == 0
    assert found["accuracy"] == 0.5


def test_class_order_does_not_matter() -> None:
    truth = ["cat", "cat", "dog"]
    found = run(truth, truth, truth, classes=("cat", "dog"), live_classes=("dog", "cat"))
    assert found["accuracy"] == found["candidate_accuracy"] == 1
    assert found["new_classes"] == found["dropped_classes"] == []


def test_a_class_without_test_images_is_nan_and_listed() -> None:
    found = run(["cat", "cat"], ["cat", "cat"], ["cat", "dog"])
    assert found["per_class"]["dog"]["support"] == 0
    assert math.isnan(found["per_class"]["dog"]["live_recall"])
    assert math.isnan(found["per_class"]["dog"]["difference_high"])
    assert found["balanced_accuracy"] == 0.5


def test_differences_by_hand() -> None:
    """The candidate alone is right about three images, live about one: of four tosses of a coin, 3 : 1 or worse are
    2 * 5/16."""
    truth = ["cat"] * 8
    candidate = ["cat"] * 7 + ["dog"]
    live = ["cat"] * 4 + ["dog"] * 3 + ["cat"]
    found = run(truth, candidate, live)
    assert found["mcnemar"] == {"only_candidate": 3, "only_live": 1, "p_value": pytest.approx(10 / 16)}
    assert found["accuracy_difference"] == pytest.approx(2 / 8)
    assert found["accuracy_difference_low"] < 0 < 2 / 8 < found["accuracy_difference_high"]


def test_equal_answers_are_no_evidence() -> None:
    assert run(["cat", "dog"], ["cat", "cat"], ["cat", "cat"])["mcnemar"] == {
        "only_candidate": 0,
        "only_live": 0,
        "p_value": 1.0,
    }


def test_intervals_of_all_classes_together_are_wider() -> None:
    truth = ["cat", "dog"] * 20
    found = run(truth, ["cat"] * 30 + ["dog"] * 10, ["dog"] * 40)["per_class"]["dog"]
    assert -1 <= found["difference_low_all"] < found["difference_low"] < -15 / 20
    assert found["difference_high"] < found["difference_high_all"] < 0
    alone = run(["dog"] * 20, ["cat"] * 20, ["dog"] * 20)["per_class"]["dog"]
    assert alone["difference_high_all"] == alone["difference_high"]  # one class with images


def test_a_new_class_says_nothing_of_the_known_ones() -> None:
    """Of 100 images of known classes the candidate gets 16 wrong and the live model 15 others; it gets right all 20
    images of the new class, which the live model cannot."""
    known = tuple("abcde")
    truth = [name for name in known for _ in range(20)]
    candidate = [name if number % 6 else "?" for number, name in enumerate(truth[:91])] + truth[91:]
    live = [name if number % 6 != 3 else "?" for number, name in enumerate(truth[:90])] + truth[90:]
    found = run(
        [*truth, *["new"] * 20],
        [*candidate, *["new"] * 20],
        [*live, *["a"] * 20],
        classes=(*known, "new"),
        live_classes=known,
    )
    assert found["difference"] == pytest.approx((5 * -0.01 + 1) / 6)
    assert found["difference_low"] > 0.05
    alone = run(truth, candidate, live, classes=known, live_classes=known)
    assert (found["known"]["classes"], found["known"]["images"]) == (5, 100)
    assert found["known"]["difference"] == pytest.approx(-0.01)
    assert found["known"]["difference_low"] == pytest.approx(alone["difference_low"], abs=0.02)
    assert found["known"]["difference_low"] < -0.1 < 0.05 < found["known"]["difference_high"]


def test_where_no_class_is_new_all_are_known() -> None:
    found = run(["cat"] * 4 + ["dog"] * 2, ["cat"] * 5 + ["dog"], ["dog"] * 6)
    assert found["known"] == {
        "classes": 2,
        "images": 6,
        **{name: found[name] for name in ("difference", "difference_low", "difference_high")},
    }


def test_only_images_of_a_new_class_leave_the_known_ones_unknown() -> None:
    found = run(["dog"] * 3, ["dog"] * 3, ["cat"] * 3, live_classes=("cat",))
    assert found["difference"] == 1
    assert (found["known"]["classes"], found["known"]["images"]) == (0, 0)
    assert np.isnan([found["known"][name] for name in ("difference", "difference_low", "difference_high")]).all()


def test_log_losses_are_of_the_classes_that_both_know() -> None:
    candidate = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    live = np.array([[0.1, 0.9], [0.5, 0.5], [0.5, 0.5]])  # of dog and cat
    labels = np.array([0, 1, 2])
    found = log_losses(labels, candidate, live, classes=("cat", "elk", "dog"), live_classes=("dog", "cat"))
    assert found["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.5)) / 2)
    assert found["candidate_log_loss"] == pytest.approx(-(math.log(0.5) + math.log(0.6)) / 2)
    assert found["log_loss_images"] == 2


def test_log_losses_of_strangers_are_unknown() -> None:
    found = log_losses(np.array([0]), np.ones((1, 1)), np.ones((1, 1)), classes=("cat",), live_classes=("dog",))
    assert math.isnan(found["log_loss"])
    assert math.isnan(found["candidate_log_loss"])
    assert found["log_loss_images"] == 0


def test_no_images_at_all() -> None:
    found = run([], [], [])
    assert found["images"] == 0
    assert math.isnan(found["difference"])
    assert math.isnan(found["difference_low"])
    assert math.isnan(found["accuracy_difference_high"])
    assert math.isnan(found["mcnemar"]["p_value"])
