from __future__ import annotations

from pathlib import Path

from pipeline.diagnosis.diagnosing import as_json, diagnose
from pipeline.settings import parse, read_params, with_overrides
from tests.pipeline.diagnosis.scenario import CLASSES, SOUND, answers, phase, poor

PARAMS = read_params(Path(__file__).parents[3] / "params.yaml")
WORST = poor(
    training_groups={"ant": 3, "bee": 4, "cow": 60, "dog": 90},
    answers=(
        answers("ant", "bee", 40, short_side=28, confidence=0.99)
        + answers("cow", "dog", 40, short_side=28, batch="0002")
        + answers("dog", "dog", 40, short_side=28)
        + answers("bee", "bee", 40, short_side=28)
    ),
    phases=(phase("head", val_loss=0.2), phase("finetune", accuracy=0.99, val_accuracy=0.5, val_loss=0.39)),
    test_accuracy=0.2,
    folds=(0.8, 0.4),
    drifted={"brightness": 0.5},
)


def test_nothing_is_wrong_with_a_sound_training() -> None:
    assert diagnose(SOUND) == []


def test_causes_are_ranked_and_scored_within_bounds() -> None:
    found = diagnose(WORST)
    assert len(found) >= 8
    assert [cause.score for cause in found] == sorted((cause.score for cause in found), reverse=True)
    assert all(0.05 <= cause.score <= 1 for cause in found)
    assert len({cause.cause for cause in found}) == len(found)


def test_every_change_is_a_valid_setting() -> None:
    texts = [f"{key}={value}" for cause in diagnose(WORST) for key, value in cause.change.items()]
    assert len(texts) >= 4
    for text in texts:
        parse(with_overrides(PARAMS, [text]))


def test_json_has_the_documented_keys() -> None:
    for cause in as_json(diagnose(WORST))["causes"]:
        assert cause.keys() == {"cause", "score", "evidence", "change", "advice"}
        assert all(sentence.endswith(".") for sentence in cause["evidence"])


def test_classes_of_the_scenario_are_all_there() -> None:
    assert {answer.label for answer in WORST.answers} == set(CLASSES)
