from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import presets
from pipeline.dataset.presets import PRESETS, Policy
from pipeline.errors import SettingsError
from pipeline.settings import Augment, load, parse, read_params, with_overrides

PARAMS = Path(__file__).parents[3] / "params.yaml"


def chosen(*overrides: str) -> Augment:
    return parse(with_overrides(read_params(PARAMS), [f"augment.{text}" for text in overrides])).augment


def test_what_is_shipped_is_the_standard_preset_and_writes_no_copies() -> None:
    shipped = load(PARAMS).augment

    assert presets.resolve(shipped) == PRESETS["standard"]
    assert shipped.balance == 0


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_named(name: str) -> None:
    assert presets.resolve(chosen(f"preset={name}")) == PRESETS[name]


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("horizontal_flip=false", "horizontal_flip", False),
        ("crop=1", "crop", 1.0),
        ("erase=0", "erase", 0.0),
        ("randaugment=0", "randaugment", 0),
        ("cutmix=0.0", "cutmix", 0.0),
        ("vertical_flip=true", "vertical_flip", True),
        ("fill=wrap", "fill", "wrap"),
        ("never_mirror=[b, d]", "never_mirror", ("b", "d")),
    ],
)
def test_an_own_value_replaces_that_of_the_preset_and_no_other(override: str, field: str, value: Any) -> None:
    expected = vars(PRESETS["strong"]) | {field: value}

    assert vars(presets.resolve(chosen("preset=strong", override))) == expected


def test_presets_that_must_not_mirror_or_mix() -> None:
    assert not PRESETS["none"].moves
    assert not PRESETS["medical"].mirrors
    assert PRESETS["medical"].hue == PRESETS["medical"].saturation == 0
    assert [name for name, policy in PRESETS.items() if policy.mixes] == ["strong"]


@pytest.mark.parametrize(
    ("policy", "moves"),
    [
        (Policy(), False),
        (Policy(brightness=1, erase=0.5, crop=0.5, mixup=1), False),
        (Policy(vertical_flip=True), True),
        (Policy(shear=0.1), True),
        (Policy(randaugment=1), True),
    ],
    ids=["nothing", "colour", "flip", "shear", "randaugment"],
)
def test_what_moves_pixels(policy: Policy, moves: bool) -> None:
    assert policy.moves is moves


@pytest.mark.parametrize(
    "override",
    [
        *("preset=wild", "rotation=0.6", "crop=0", "zoom=1", "erase=1", "randaugment=9", "magnitude=2", "mixup=-1"),
        *("fill=black", "hue=1", "horizontal_flip=3", "max_copies=0", "balance=1.5", "never_mirror=b"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_key(override: str) -> None:
    with pytest.raises(SettingsError, match=rf"augment\.{override.split('=')[0]}"):
        chosen(override)
