"""The form against what Refit itself knows and accepts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import form
import pytest
import yaml
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from pipeline.backbones import registry
from pipeline.settings import AugmentPreset, Train, parse, read_params, with_overrides

ROOT = Path(__file__).parents[2]
PARAMS: Mapping[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())


def filled(**entered: Any) -> dict[str, Any]:
    """What a run gets from what was entered, after Airflow's validation."""
    params = ParamsDict(form.form(PARAMS))
    params.update(entered)
    return params.validate()


def test_lists_are_those_of_the_pipeline() -> None:
    assert set(form.BACKBONES) == {entry.name for entry in registry.entries()}
    assert set(form.RECIPES) == set(get_args(Train.model_fields["recipe"].annotation))
    assert set(form.PRESETS) == set(get_args(AugmentPreset))


def test_an_empty_form_leaves_all_to_params_yaml() -> None:
    assert form.start_options(filled()) == []
    assert form.start_options(filled(source="", model="")) == [], "a text field that was filled and emptied again"


EVERYTHING = {
    "source": "s3://photos/new",
    "model": "pets",
    "backbone": "resnet50",
    "recipe": "full",
    "input_size": 128,
    "batch_size": 8,
    "folds": 2,
    "augment": "none",
    "seed": 0,
    "min_accuracy": 0.0,
    "min_balanced_accuracy": 0.25,
    "min_gain": -0.5,
    "set": ["evaluate.slices=[camera]", "train.seed=7"],
}


def test_every_field_overrides_its_key_and_the_list_counts_last() -> None:
    options = form.start_options(filled(**EVERYTHING))
    assert options[:2] == ["--source=s3://photos/new", "--model=pets"]
    overrides = [text.removeprefix("--set=") for text in options[2:]]
    settings = parse(with_overrides(read_params(ROOT / "params.yaml"), overrides))
    assert settings.train.parts == ("fold-0", "fold-1", "final")
    found = {
        "backbone": settings.train.backbone,
        "recipe": settings.train.recipe,
        "input_size": settings.train.input_size,
        "batch_size": settings.train.batch_size,
        "augment": settings.augment.preset,
        "min_accuracy": settings.gate.min_accuracy,
        "min_balanced_accuracy": settings.gate.min_balanced_accuracy,
        "min_gain": settings.gate.min_gain,
    }
    assert found == {name: EVERYTHING[name] for name in found}
    assert (settings.train.seed, settings.evaluate.slices) == (7, ("camera",))


def test_a_whole_number_may_have_a_decimal_point() -> None:
    """JSON schema calls 5.0 an integer, and clients in languages without integers write it so."""
    assert form.start_options(filled(folds=2.0, seed=7.0, min_gain=0.0)) == [
        '--set=train.parts=["fold-0", "fold-1", "final"]',
        "--set=train.seed=7",
        "--set=gate.min_gain=0.0",
    ]


@pytest.mark.parametrize(
    "entered",
    [
        {"backbone": "resnet_50"},
        {"recipe": "magic"},
        {"augment": "wild"},
        {"model": "../up"},
        {"input_size": 8},
        {"input_size": "224"},
        {"batch_size": 0},
        {"folds": 1},
        {"folds": 2.5},
        {"seed": -1},
        {"min_accuracy": 1.1},
        {"min_gain": -2},
        {"set": ["train.seed"]},
        {"set": "train.seed=1"},
        {"set": ["--force"]},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_a_run_starts(entered: dict[str, Any]) -> None:
    with pytest.raises(ParamValidationError):
        filled(**entered)


def test_fields_are_grouped_and_say_what_empty_means() -> None:
    fields = form.form(PARAMS)
    assert list(dict.fromkeys(field.schema["section"] for field in fields.values())) == [
        "Data",
        "Training",
        "Gate",
        "Anything else",
    ]
    assert fields["backbone"].description.endswith("Empty: efficientnet_lite0 (train.backbone).")
    assert fields["folds"].description.endswith("Empty: 3 (train.parts).")
    assert fields["source"].description.endswith("Empty: none (ingest.source).")
