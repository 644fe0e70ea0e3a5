from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.training import card
from tests.pipeline.training.phases import FINETUNE, HEAD

HISTORY: dict[str, Any] = {
    "phases": [
        {**HEAD, "best_epoch": 1, "seconds": 3.5, "unfrozen": "none"},
        {**FINETUNE, "best_epoch": 0, "seconds": 60.25},
    ],
    "kept_phase": "head",
    "classes": ["cat", "dog | <b>", "eel"],
    "environment": {
        "seed": 7,
        "gpus": [],
        "cpu": {"model": "Xeon", "cores": 2},
        "packages": {"keras": "3.15.1", "numpy": "1.26.4"},
        "devices": ["cpu:0", "cpu:1"],
    },
    "backbone": "resnet50",
    "weights": "imagenet",
    "input_size": 224,
    "filters": [],
    "parity": {"model.keras": 0.0, "model.tflite": 1.19e-7},
}
IMAGES = {"train": {"cat": 10, "dog | <b>": 4}, "val": {"cat": 2, "eel": 1}}


def written(folder: Path, name: str = "signs", **changed: Any) -> str:
    card.write(folder / "card.md", HISTORY | changed, name=name, images=IMAGES)
    return (folder / "card.md").read_text()


def rows(text: str, title: str) -> list[list[str]]:
    """Cells of the table under a heading, without its header; an escaped bar is part of a cell."""
    section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_the_tables_say_what_was_trained_on_what_and_how(tmp_path: Path) -> None:
    text = written(tmp_path)

    assert rows(text, "Classes") == [
        ["cat", "10", "2"],
        ["dog \\| &lt;b>", "4", "0"],
        ["eel", "0", "1"],
        ["all", "14", "3"],
    ]
    assert rows(text, "Training") == [
        ["head (kept)", "none", "2", "2", "0.01", "3.5"],
        ["finetune", "", "1", "1", "", "60.25"],
    ]
    assert "Accuracy 0.625, loss 1.125 in epoch 2 of phase head." in text
    assert dict(rows(text, "Files")) == {"model.keras": "0.0e+00", "model.tflite": "1.2e-07"}
    assert dict(rows(text, "To train it again")) == {
        "cpu": "cores 2, model Xeon",
        "devices": "cpu:0; cpu:1",
        "packages": "keras 3.15.1, numpy 1.26.4",
        "seed": "7",
    }


@pytest.mark.parametrize(("temperature", "said"), [(1.5, True), (1.0, False)], ids=["calibrated", "as it was"])
def test_a_temperature_is_told_where_there_is_one(tmp_path: Path, temperature: float, said: bool) -> None:
    losses = {"val_log_loss_before": 0.75, "val_log_loss_after": 0.5, "val_images": 3}
    text = written(tmp_path, calibration={"temperature": temperature, **losses})

    assert (
        "a temperature of 1.5, which is part of the weights, made their log loss 0.500 instead of 0.750" in text
    ) == said


def test_what_only_a_person_knows_is_asked_for(tmp_path: Path) -> None:
    asked = re.findall(r"^## (.*)\n\n\*\*To do:\*\*", written(tmp_path), re.MULTILINE)

    assert asked == ["Intended use", "Limits", "People", "Data", "Contact"]


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [
        ("resnet50", "imagenet", "MIT"),
        ("inception_v3", "imagenet", "Apache-2.0"),
        ("inception_v3", "s3://models/ours.h5", "**To do:** look it up"),
        ("one_of_tomorrow", "imagenet", "**To do:** look it up"),
        ("resnet50", "none", "none apply"),
    ],
)
def test_a_licence_is_told_only_where_it_is_known(tmp_path: Path, backbone: str, weights: str, expected: str) -> None:
    model = dict(rows(written(tmp_path, backbone=backbone, weights=weights), "Model"))

    assert model["licence of these weights"] == expected


def test_the_same_history_gives_the_same_bytes_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    environment = dict(reversed(HISTORY["environment"].items()))

    assert written(tmp_path, environment=environment) == written(tmp_path)
