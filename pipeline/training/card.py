"""The stub of a model card: what training knows of a model, and the questions that only a person can answer.

The sections are those of Mitchell et al., Model Cards for Model Reporting, 2019, less the evaluation, which the
promotion adds (`promotion.card`). The same history gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import files

# Of the weights that `imagenet` stands for: Keras's documentation of its applications, the package of Lite0.
_LICENCES = {
    "efficientnet_lite0": "Apache-2.0",
    "inception_resnet_v2": "Apache-2.0",
    "inception_v3": "Apache-2.0",
    "mobilenet_v2": "Apache-2.0",
    "resnet50": "MIT",
}
STUB = "A stub that Refit wrote after training."
_ASKED = (
    ("Intended use", "Who uses the answers, for what, and for what they must not be used."),
    ("Limits", "Which images it has not learned from: cameras, places, seasons, kinds of the same thing."),
    ("People", "Whether images show people or follow from what they do, who may be harmed by a wrong answer, and how."),
    ("Data", "Where the images come from, who labelled them and how, under which licence they may be used."),
    ("Contact", "Who answers for this model."),
)


def licence(backbone: str, weights: str) -> str | None:
    """The licence of the weights that training started from, as an SPDX identifier; None where it is not known."""
    return _LICENCES.get(backbone) if weights == "imagenet" else None


def write(
    target: Path,
    history: Mapping[str, Any],
    *,
    name: str,
    images: Mapping[str, Mapping[str, int]],
) -> None:
    """Write card.md.

    Args:
        history: what history.json holds.
        name: of the model.
        images: split, `train` and `val`, to label to images, augmented copies excepted.
    """
    files.write_text(
        target,
        "\n\n".join(
            [
                f"# Model card: {text(name)}",
                f"{STUB} **To do** marks what a person must fill in.",
                "## Model",
                _model(history),
                "## Classes",
                _classes(history["classes"], images),
                "## Training",
                _phases(history),
                "## Validation",
                _validation(history),
                "## Files",
                _files(history["parity"]),
                "## To train it again",
                _environment(history["environment"]),
                *(f"## {title}\n\n**To do:** {question}" for title, question in _ASKED),
            ]
        )
        + "\n",
    )


def _model(history: Mapping[str, Any]) -> str:
    backbone, weights, size = history["backbone"], history["weights"], history["input_size"]
    known = licence(backbone, weights)
    rows = [
        ("backbone", backbone),
        ("started from", weights),
        ("licence of these weights", known or ("**To do:** look it up" if weights != "none" else "none apply")),
        ("input", f"uint8 [N, {size}, {size}, 3], RGB, 0-255; scaling is part of the model"),
        ("filters in front of it", ", ".join(history["filters"]) or "none"),
        ("output", f"probabilities, float32 [N, {len(history['classes'])}]"),
    ]
    return table(["", ""], rows)


def _classes(classes: Sequence[str], images: Mapping[str, Mapping[str, int]]) -> str:
    rows = [(label, images["train"].get(label, 0), images["val"].get(label, 0)) for label in classes]
    total = ("all", sum(images["train"].values()), sum(images["val"].values()))
    return table(["class", "training images", "validation images"], [*rows, total])


def _phases(history: Mapping[str, Any]) -> str:
    header = ["phase", "unfrozen", "epochs", "best epoch", "highest learning rate", "seconds"]
    rows = [
        (
            phase["name"] + (" (kept)" if phase["name"] == history["kept_phase"] else ""),
            phase.get("unfrozen", ""),
            len(phase["loss"]),
            phase["best_epoch"] + 1,
            f"{max(phase['learning_rate']):.2g}" if phase.get("learning_rate") else "",
            phase["seconds"],
        )
        for phase in history["phases"]
    ]
    return table(header, rows)


def _validation(history: Mapping[str, Any]) -> str:
    kept = next(phase for phase in history["phases"] if phase["name"] == history["kept_phase"])
    best = kept["best_epoch"]
    return (
        f"Accuracy {kept['val_accuracy'][best]:.3f}, loss {kept['val_loss'][best]:.3f} in epoch {best + 1} of phase "
        f"{text(kept['name'])}. That epoch was chosen by these images, so they flatter the model: what it is worth is "
        "measured on folds and held-out images, and comes into this card with the promotion."
    )


def _files(parity: Mapping[str, float]) -> str:
    if not parity:
        return "The model of a fold: it is there to be measured, and was not compared with the trained one."
    rows = [(name, f"{difference:.1e}") for name, difference in parity.items()]
    return table(["file", "largest difference of a probability from the trained model"], rows)


def _environment(environment: Mapping[str, Any]) -> str:
    """Mappings and lists become one line each; what is empty is left out."""
    rows = [(key, _line(value)) for key, value in sorted(environment.items()) if value not in ({}, [], None, "")]
    return table(["", ""], rows)


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_line(found)}" for key, found in sorted(value.items()))
    if isinstance(value, list | tuple):
        return "; ".join(_line(found) for found in value)
    return str(value)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(text(str(cell)) for cell in line) + " |" for line in lines)


def text(words: str) -> str:
    """Labels are folder names, so anything can be in them; none of it may end a cell or start a tag."""
    return " ".join(words.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
