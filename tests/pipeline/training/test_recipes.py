from __future__ import annotations

import pytest

from pipeline import settings
from pipeline.backbones import registry
from pipeline.errors import SettingsError
from pipeline.settings import TopBlocks, Train
from pipeline.training import recipes

PARAMS = settings.read_params(settings.code_root() / "params.yaml")


def train(*overrides: str) -> Train:
    return settings.parse(settings.with_overrides(PARAMS, overrides)).train


@pytest.mark.parametrize("name", [name for name in recipes.RECIPES if name != recipes.CUSTOM])
def test_every_recipe_fits_every_backbone(name: str) -> None:
    for entry in registry.entries():
        weights = "none" if name == "from_scratch" else "imagenet"
        chosen = train(
            f"train.recipe={name}", f"train.backbone={entry.name}", f"train.weights={weights}", "train.input_size=331"
        )
        learning = [recipes.blocks(phase, entry) for phase in recipes.resolve(chosen).phases]
        assert recipes.check(chosen).name == entry.name
        assert learning == sorted(learning), "a block that has learned is frozen again"


def test_changes_of_one_phase_go_before_those_of_every_phase_and_both_before_the_recipe() -> None:
    chosen = train(
        "train.phases.every.weight_decay=0.5",
        "train.phases.finetune.weight_decay=0.0",
        "train.phases.finetune.unfreeze={top: 5}",
    )

    head, finetune = recipes.resolve(chosen).phases

    assert (head.weight_decay, finetune.weight_decay) == (0.5, 0.0)
    assert finetune.unfreeze == TopBlocks(top=5)
    assert head.epochs == recipes.RECIPES["head_then_finetune"].phases[0].epochs


def test_a_custom_recipe_is_what_its_phases_say_in_their_order() -> None:
    chosen = train(
        "train.recipe=custom", "train.phases={warm: {epochs: 2}, tune: {unfreeze: all}, every: {patience: 1}}"
    )

    warm, tune = recipes.resolve(chosen).phases

    assert (warm.name, warm.epochs, warm.patience, warm.unfreeze) == ("warm", 2, 1, "none")
    assert (tune.name, tune.patience, tune.unfreeze) == ("tune", 1, "all")


@pytest.mark.parametrize(
    ("unfreeze", "number"),
    [("none", 0), ("{top: 2}", 2), ("{from: mixed9}", 2), ("{from: top}", 1), ("{from: mixed0}", 11), ("all", 11)],
)
def test_blocks_are_counted_from_the_top(unfreeze: str, number: int) -> None:
    chosen = train(f"train.phases.finetune.unfreeze={unfreeze}")

    assert recipes.blocks(recipes.resolve(chosen).phases[1], registry.get("inception_v3")) == number


@pytest.mark.parametrize("hidden", ["null", "[]", "[64, 32]"])
def test_hidden_layers_are_the_recipes_unless_said_otherwise(hidden: str) -> None:
    expected = {"null": (256,), "[]": (), "[64, 32]": (64, 32)}[hidden]

    assert recipes.resolve(train("train.recipe=feature_extraction", f"train.head.hidden={hidden}")).hidden == expected


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["train.phases.fintune.epochs=3"], "phases head, finetune, did you mean finetune?"),
        (["train.recipe=custom"], "custom expects phases"),
        (["train.phases.finetune.unfreeze={top: 99}"], "efficientnet_lite0 has 18 blocks, got 99"),
        (["train.phases.finetune.unfreeze={from: block_99}"], "no block 'block_99'"),
        (["train.recipe=from_scratch"], "from_scratch starts from random weights, got 'imagenet'"),
        (["train.weights=none"], "leaves blocks random"),
        (["train.backbone=inception_v3", "train.input_size=64"], "inception_v3 needs at least 75, got 64"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(overrides: list[str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        recipes.check(train(*overrides))
    assert problem in caught.value.problem
