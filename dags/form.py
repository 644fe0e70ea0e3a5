"""The form of a retraining: what people change most, each an override of params.yaml, and a free list for the rest.

Airflow checks what is entered against these before a run starts, in the UI and over REST; `refit start` checks the
rest. Empty always means: params.yaml decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Param

# Kept equal to pipeline's by a test, since nothing here may import it.
BACKBONES = (
    "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "convnext_xlarge",
    "densenet121", "densenet169", "densenet201",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_lite0",
    "efficientnet_v2_b0", "efficientnet_v2_b1", "efficientnet_v2_b2", "efficientnet_v2_b3",
    "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s",
    "inception_resnet_v2", "inception_v1", "inception_v3",
    "mobilenet", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
    "nasnet_large", "nasnet_mobile",
    "resnet101", "resnet101v2", "resnet152", "resnet152v2", "resnet50", "resnet50v2",
    "vgg16", "vgg19", "xception",
)  # fmt: skip
RECIPES = (
    "linear_probe", "feature_extraction", "head_then_finetune", "gradual_unfreeze", "discriminative", "full",
    "from_scratch", "custom",
)  # fmt: skip
PRESETS = ("none", "light", "standard", "strong", "medical", "aerial")
FOLDS = range(2, 11)
SET_PATTERN = r"^[a-z_]+(\.[a-z][a-z0-9_]*)+="


@dataclass(frozen=True)
class Field:
    """A field of the form and the key of params.yaml that it overrides."""

    name: str
    key: str
    title: str
    section: str
    schema: Mapping[str, Any]  # JSON schema of a value that is not empty
    help: str = ""


SHARE = {"type": "number", "minimum": 0, "maximum": 1}
FIELDS = (
    Field("backbone", "train.backbone", "Backbone", "Training",
          {"type": "string", "enum": BACKBONES}, "The pretrained network."),
    Field("recipe", "train.recipe", "Recipe", "Training",
          {"type": "string", "enum": RECIPES}, "How it is fine-tuned; `refit recipes` describes them."),
    Field("input_size", "train.input_size", "Input size", "Training",
          {"type": "integer", "minimum": 16, "maximum": 1024}, "Pixels, height = width."),
    Field("batch_size", "train.batch_size", "Batch size", "Training",
          {"type": "integer", "minimum": 1}, "Images per step."),
    Field("folds", "train.parts", "Folds", "Training",
          {"type": "integer", "minimum": FOLDS[0], "maximum": FOLDS[-1]}, "Of cross-validation."),
    Field("augment", "augment.preset", "Augmentation", "Training",
          {"type": "string", "enum": PRESETS}, "Preset of section augment."),
    Field("seed", "train.seed", "Seed", "Training",
          {"type": "integer", "minimum": 0}, "Another one trains again even if nothing is new."),
    Field("min_accuracy", "gate.min_accuracy", "Lowest accuracy", "Gate",
          SHARE, "Absolute floor, on the held-out test set."),
    Field("min_balanced_accuracy", "gate.min_balanced_accuracy", "Lowest balanced accuracy", "Gate",
          SHARE, "Absolute floor of the mean recall of the classes."),
    Field("min_gain", "gate.min_gain", "Lowest gain", "Gate",
          {**SHARE, "minimum": -1}, "Balanced accuracy of the candidate minus that of the live model."),
)  # fmt: skip


def form(params: Mapping[str, Any]) -> dict[str, Param]:
    """The DAG's params. `params`: params.yaml, whose values are shown as what an empty field means."""
    return {
        "source": Param(
            None,
            type=["null", "string"],
            title="Source",
            section="Data",
            description="Directory or s3://bucket/prefix with one folder per class. " + _empty(params, "ingest.source"),
        ),
        "model": Param(
            None,
            type=["null", "string"],
            pattern="^([a-z0-9][a-z0-9_-]{0,63})?$",
            title="Model",
            section="Data",
            description="Name in the registry. " + _empty(params, "promote.model"),
        ),
        **{field.name: _param(field, params) for field in FIELDS},
        "set": Param(
            [],
            type="array",
            items={"type": "string", "pattern": SET_PATTERN},
            title="Other settings",
            section="Anything else",
            description="One section.key=value per line; params.yaml lists and explains every key. They count last.",
        ),
    }


def start_options(entered: Mapping[str, Any]) -> list[str]:
    """The options of `refit start` that a filled form means."""
    source, model = entered.get("source"), entered.get("model")
    settings = [
        f"{field.key}={_value(field, entered[field.name])}" for field in FIELDS if entered.get(field.name) is not None
    ]
    return [
        *([f"--source={source}"] if source else []),
        *([f"--model={model}"] if model else []),
        *(f"--set={text}" for text in [*settings, *(entered.get("set") or ())]),
    ]


def _param(field: Field, params: Mapping[str, Any]) -> Param:
    schema = {**field.schema, "type": ["null", field.schema["type"]]}
    if "enum" in schema:
        schema["enum"] = [None, *schema["enum"]]
        schema["values_display"] = {"null": "as params.yaml says"}
    description = f"{field.help} {_empty(params, field.key)}"
    return Param(None, title=field.title, section=field.section, description=description, **schema)


def _value(field: Field, value: Any) -> str:
    if field.schema["type"] == "integer":
        value = int(value)  # 5.0 is an integer to JSON schema
    if field.name == "folds":
        return json.dumps([*(f"fold-{number}" for number in range(value)), "final"])
    return json.dumps(value)  # which is YAML, too


def _empty(params: Mapping[str, Any], key: str) -> str:
    section, name = key.split(".")
    value = (params.get(section) or {}).get(name)
    if key == "train.parts" and isinstance(value, Sequence):
        value = len(value) - 1
    return f"Empty: {'none' if value is None else value} ({key})."
