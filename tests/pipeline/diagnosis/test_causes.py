"""Each family on both sides: silent on a sound training, clear on the one thing that is bent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.diagnosis import classes, drift, facts, fitting, quantity, resolution, stability, transfer
from pipeline.diagnosis.cause import Cause, ramp
from pipeline.diagnosis.compared import Shares
from pipeline.diagnosis.facts import Facts
from pipeline.settings import Phase
from tests.pipeline.diagnosis.scenario import CLASSES, SOUND, answers, phase, poor

BLOCKS, EPOCHS = 3, 10  # of the phase finetune in the default recipe


def only(found: list[Cause], name: str) -> Cause:
    (cause,) = [cause for cause in found if cause.cause == name]
    return cause


def scores(found: list[Cause]) -> dict[str, float]:
    return {cause.cause: cause.score for cause in found if cause.score > 0.02}


@pytest.mark.parametrize(
    ("value", "nothing", "certain", "expected"),
    [(0.1, 0, 0.2, 0.5), (-1, 0, 0.2, 0), (3, 0, 0.2, 1), (55, 100, 10, 0.5), (200, 100, 10, 0), (1, 100, 10, 1)],
)
def test_ramp(value: float, nothing: float, certain: float, expected: float) -> None:
    assert ramp(value, nothing, certain) == pytest.approx(expected)


@pytest.mark.parametrize("family", [quantity, resolution, fitting, transfer, classes, stability, drift])
def test_a_sound_training_has_no_cause(family: object) -> None:
    assert scores(list(family.find(SOUND))) == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("pictures", "low", "high"), [(5, 1, 1), (30, 0.4, 0.7), (100, 0, 0)])
def test_few_images_matter_by_the_class(pictures: int, low: float, high: float) -> None:
    cause = only(list(quantity.find(poor(training_groups=dict.fromkeys(CLASSES, pictures)))), "too few images")
    assert low <= cause.score <= high
    assert str(pictures) in cause.evidence[0]


def test_few_images_of_a_good_model_are_no_cause() -> None:
    facts = replace(SOUND, training_groups=dict.fromkeys(CLASSES, 5), balanced_accuracy=0.99)
    assert only(list(quantity.find(facts)), "too few images").score == 0


def test_imbalance_counts_if_the_small_classes_suffer() -> None:
    sizes = {"ant": 10, "bee": 200, "cow": 200, "dog": 200}
    suffering = answers("ant", "bee", 30) + answers("ant", "ant", 10) + SOUND.answers[240:]
    cause = only(list(quantity.find(poor(training_groups=sizes, answers=suffering))), "imbalanced classes")
    assert cause.score == pytest.approx(1)
    assert "20.0 times" in cause.evidence[0]
    assert only(list(quantity.find(poor(training_groups=sizes))), "imbalanced classes").score == 0


def test_class_weights_are_suggested_where_they_are_off() -> None:
    train = SOUND.train.model_copy(update={"phases": {"finetune": Phase(class_balance="none")}})
    cause = only(list(quantity.find(poor(train=train))), "imbalanced classes")
    assert cause.change == {"train.phases.every.class_balance": "weights"}


def test_overfitting_is_the_gap_beyond_chance() -> None:
    facts = replace(SOUND, phases=(phase("head"), phase("finetune", accuracy=0.99, val_accuracy=0.6)))
    cause = only(list(fitting.find(facts)), "overfitting")
    assert cause.score == 1
    assert cause.evidence == (
        "Training accuracy is 0.990, validation accuracy 0.600 (150 images): a gap of 0.390, allowed is 0.15.",
    )
    assert cause.change["train.phases.finetune.unfreeze.top"] == BLOCKS - 1
    assert scores(list(fitting.find(replace(facts, val_images=4)))) == {}


def test_overfitting_of_the_head_leaves_finetuning_alone() -> None:
    facts = replace(SOUND, phases=(phase("head", accuracy=0.99, val_accuracy=0.6),), kept_phase="head")
    assert "train.phases.head.unfreeze.top" not in only(list(fitting.find(facts)), "overfitting").change


def test_underfitting_is_low_accuracy_on_both_sides() -> None:
    low = replace(SOUND, phases=(phase("finetune", accuracy=0.5, val_accuracy=0.5),))
    cause = only(list(fitting.find(low)), "underfitting")
    assert cause.score == pytest.approx(1)
    assert cause.change["train.phases.finetune.unfreeze.top"] == BLOCKS + 2
    hard_exam = replace(SOUND, phases=(phase("finetune", accuracy=0.7, val_accuracy=0.85),))
    assert "underfitting" not in scores(list(fitting.find(hard_exam)))


def unfinished(epochs: int) -> Facts:
    losses = tuple(1 - 0.05 * epoch for epoch in range(epochs))
    accuracies = (0.9,) * epochs
    return poor(phases=(facts.Phase("finetune", losses, accuracies, losses, accuracies, 1e-3),))


def test_training_that_still_improves_at_its_last_epoch_ended_too_early() -> None:
    cause = only(list(fitting.find(unfinished(EPOCHS))), "training ended too early")
    # From 0.70 to 0.55 in the last three epochs.
    assert cause.score == pytest.approx((0.15 / 0.7 - 0.01) / 0.19, abs=0.08)
    assert cause.change == {"train.phases.finetune.epochs": 2 * EPOCHS}
    assert scores(list(fitting.find(unfinished(EPOCHS - 1)))) == {}


def test_enlarged_images() -> None:
    tiny = tuple(replace(answer, short_side=28) for answer in SOUND.answers)
    cause = only(list(resolution.find(poor(answers=tiny))), "images too small")
    assert cause.score == 1  # 224 / 28 = 8, four times the allowed 2
    assert "8.0 times" in cause.evidence[0]
    assert cause.change == {"train.input_size": 96}


def test_small_images_that_fail_among_larger_ones() -> None:
    mixed = answers("ant", "bee", 20, short_side=40) + answers("ant", "ant", 20, short_side=40) + SOUND.answers
    cause = only(list(resolution.find(poor(answers=mixed))), "small images fail")
    assert cause.score == 1
    assert "40 images" in cause.evidence[0]
    assert "50%" in cause.evidence[0]
    two = answers("ant", "bee", 1, short_side=40) + answers("ant", "ant", 1, short_side=40) + SOUND.answers[:20]
    assert "small images fail" not in scores(list(resolution.find(poor(answers=two))))


def test_shrunk_images() -> None:
    large = tuple(replace(answer, short_side=2688) for answer in SOUND.answers)
    cause = only(list(resolution.find(poor(answers=large))), "detail lost by shrinking")
    assert cause.score == pytest.approx(0.5)
    assert cause.change == {"train.input_size": 320}


def test_fine_tuning_that_harms() -> None:
    facts = poor(phases=(phase("head", val_loss=0.2), phase("finetune", val_loss=0.3)), kept_phase="head")
    cause = only(list(transfer.find(facts)), "fine-tuning harms")
    assert cause.score == pytest.approx(1)
    assert cause.change == {"train.phases.finetune.learning_rate": 1e-3 / 4}


def test_weak_classes_are_weak_beyond_chance() -> None:
    weak = answers("ant", "bee", 40) + answers("ant", "ant", 10) + SOUND.answers[240:]
    cause = only(list(classes.find(poor(answers=weak))), "weak classes")
    assert cause.score > 0.99
    assert "ant 20% of 50" in cause.evidence[0]
    doubtful = answers("ant", "bee", 1) + answers("ant", "ant", 1) + SOUND.answers[240:]
    assert only(list(classes.find(poor(answers=doubtful))), "weak classes").score < 0.75


def test_confused_pair() -> None:
    confused = SOUND.answers + answers("bee", "cow", 20) + answers("cow", "bee", 19) + answers("ant", "dog", 1)
    cause = only(list(classes.find(poor(answers=confused))), "confused classes")
    assert cause.evidence[0] == "39 of 40 mistakes are between bee and cow."
    assert cause.score == 1
    even = SOUND.answers + tuple(
        answer for one in CLASSES for other in CLASSES if one != other for answer in answers(one, other, 5)
    )
    assert scores(list(classes.find(poor(answers=even)))) == {}


def test_confident_contradictions_name_the_images() -> None:
    wrong = SOUND.answers + answers("bee", "cow", 60, confidence=0.99, uri="bee/17.jpg")
    cause = only(list(classes.find(replace(SOUND, answers=wrong))), "wrong labels")
    assert cause.score == 1
    assert "bee/17.jpg (bee, answer cow)" in cause.evidence[1]


def test_folds_that_disagree() -> None:
    assert only(list(stability.find(replace(SOUND, folds=(0.9, 0.7)))), "folds disagree").score == pytest.approx(0.5)


def test_test_set_below_validation_beyond_chance() -> None:
    assert only(list(stability.find(replace(SOUND, test_accuracy=0.7))), "test worse than validation").score == 1
    assert "test worse than validation" not in scores(
        list(stability.find(replace(SOUND, test_accuracy=0.67, test_images=3)))
    )


def test_drift_counts_fully_only_if_the_new_images_fail() -> None:
    facts = replace(SOUND, drifted={"brightness": 0.5, "contrast": 0.2})
    same = only(list(drift.find(facts)), "drift")
    assert same.score == pytest.approx(0.2)
    assert same.evidence[0] == "New images differ in brightness (distance 0.50), contrast (distance 0.20)."
    failing = answers("ant", "bee", 30, batch="0002") + answers("ant", "ant", 30, batch="0002")
    assert only(list(drift.find(replace(facts, answers=SOUND.answers + failing))), "drift").score == 1


@pytest.mark.parametrize(
    ("first", "second", "images", "expected"),
    [(0.9, 0.5, (100, 100), True), (0.9, 0.5, (100, 2), False), (0.9, 0.88, (100, 100), False), (1, 1, (9, 9), False)],
)
def test_beyond_chance(first: float, second: float, images: tuple[int, int], expected: bool) -> None:
    assert Shares(first, second, images).beyond_chance is expected
