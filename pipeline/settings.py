"""params.yaml parsed once, at the edge, into frozen typed settings.

`load` is the only way in. An unknown key or a wrong value raises `SettingsError` with the key, what was
expected, what was received and the fix. `refit_home`, `code_root` and `driver` are the only readers of the
environment and of the installation's place.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)

from pipeline.errors import SettingsError

Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]

FINAL = "final"
DRIVER = "REFIT_DRIVER"  # the variable by which `refit` tells stages its process number


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Ingest(Section):
    source: str | None
    labels: str | None
    allow_new_source: bool
    max_pixels: Positive
    max_bytes: Positive
    min_side: Positive
    max_removed_share: Share
    verify_etag: bool


class Profile(Section):
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    near_duplicate_error: Share
    near_duplicate_detail: Share
    near_duplicate_searched: Count
    drift_alpha: Fraction
    drift_min_distance: Share
    embedded_images: Count


# YAML reads an unquoted off as false.
Severity = Annotated[Literal["block", "warn", "off"], BeforeValidator(lambda value: "off" if value is False else value)]


class Policy(Section):
    class_count: Severity
    class_size: Severity
    small_class: Severity
    imbalance: Severity
    allowed_labels: Severity
    similar_labels: Severity
    quarantine_share: Severity
    unreadable: Severity
    label_conflict: Severity
    exact_duplicates: Severity
    near_duplicates: Severity
    small_image: Severity
    aspect_ratio: Severity
    blank_image: Severity
    dark_image: Severity
    bright_image: Severity
    blurred_image: Severity
    suspected_labels: Severity
    drift: Severity
    class_mix: Severity
    class_vanished: Severity
    class_added: Severity
    schema_: Annotated[Severity, Field(alias="schema")]


class Validate(Section):
    labels: tuple[str, ...] | None
    schema_: Annotated[str | None, Field(alias="schema")]  # pydantic's own name is taken
    min_classes: Annotated[int, Field(ge=2)]
    min_per_class: Positive
    min_side: Positive
    max_aspect_ratio: Annotated[float, Field(ge=1)]
    max_quarantine_share: Share
    max_imbalance: Annotated[float, Field(ge=1)]
    policy: Policy


class Shard(Section):
    salt: Annotated[str, Field(min_length=1)]
    val_share: Fraction
    test_share: Fraction
    min_per_class: Positive
    target_bytes: Annotated[int, Field(ge=1024)]
    files: Positive | None
    max_side: Annotated[int, Field(ge=16)] | None
    quality: Annotated[int, Field(ge=1, le=100)]
    compression: Literal["none", "gzip"]

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Shard:
        if self.val_share + self.test_share > 0.8:
            raise ValueError("val_share + test_share must leave at least 0.2 for training")
        return self


AugmentPreset = Literal["none", "light", "standard", "strong", "medical", "aerial"]


class Augment(Section):
    """A value of None means the preset's (`dataset.presets`)."""

    preset: AugmentPreset
    seed: Count
    fill: Literal["nearest", "reflect", "wrap", "constant"] | None
    never_mirror: tuple[str, ...]
    horizontal_flip: bool | None
    vertical_flip: bool | None
    rotation: Annotated[float, Field(ge=0, le=0.5)] | None
    translation: Share | None
    shear: Share | None
    zoom: Annotated[float, Field(ge=0, lt=1)] | None
    crop: Annotated[float, Field(gt=0, le=1)] | None
    brightness: Share | None
    contrast: Annotated[float, Field(ge=0, lt=1)] | None
    saturation: Share | None
    hue: Annotated[float, Field(ge=0, le=0.5)] | None
    erase: Annotated[float, Field(ge=0, le=0.9)] | None
    randaugment: Annotated[int, Field(ge=0, le=8)] | None
    magnitude: Share | None
    mixup: Annotated[float, Field(ge=0, le=8)] | None
    cutmix: Annotated[float, Field(ge=0, le=8)] | None
    balance: Share
    max_copies: Positive


Filter = Literal["grayscale", "edges", "contours", "clahe"]


class Head(Section):
    """`hidden` of None means the recipe's (`training.recipes`)."""

    pooling: Literal["average", "max", "average_max", "blocks"]
    normalisation: Literal["standardise", "none"]
    hidden: tuple[Positive, ...] | None
    dropout: Annotated[float, Field(ge=0, lt=1)]


class TopBlocks(Section):
    top: Positive


class FromBlock(Section):
    from_: Annotated[str, Field(alias="from", min_length=1)]


def _expecting(what: str) -> WrapValidator:
    """One message in the place of those for every member of a union."""

    def validate(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"expected {what}") from None

    return WrapValidator(validate)


Unfreeze = Annotated[
    Literal["none", "all"] | TopBlocks | FromBlock, _expecting("none, all, {top: number of blocks} or {from: block}")
]
LearningRate = Annotated[PositiveFloat | Literal["find"], _expecting("a number above 0 or find")]


class Phase(Section):
    """A value of None means the recipe's (`training.recipes`)."""

    unfreeze: Unfreeze | None = None
    epochs: Positive | None = None
    patience: Positive | None = None
    optimizer: Literal["adamw", "sgd"] | None = None
    learning_rate: LearningRate | None = None
    schedule: Literal["constant", "cosine", "plateau"] | None = None
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    batch_norm: Literal["frozen", "trained"] | None = None
    class_balance: Literal["weights", "sampling", "none"] | None = None
    augment: AugmentPreset | None = None
    clip_norm: Annotated[float, Field(ge=0)] | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None


# A phase's name is a folder of TensorBoard's, too.
PhaseName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class Train(Section):
    parts: tuple[str, ...]
    backbone: str
    weights: str
    input_size: Annotated[int, Field(ge=16, le=1024)]
    filters: tuple[Filter, ...]
    batch_size: Positive
    seed: Count
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    views: Count
    head: Head
    recipe: Literal[
        "linear_probe",
        "feature_extraction",
        "head_then_finetune",
        "gradual_unfreeze",
        "discriminative",
        "full",
        "from_scratch",
        "custom",
    ]
    phases: dict[PhaseName, Phase]
    export: tuple[Literal["tflite", "onnx"], ...]
    cache_gigabytes: Annotated[float, Field(ge=0)]

    @field_validator("parts")
    @classmethod
    def _folds_then_final(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        expected = (*(f"fold-{k}" for k in range(max(2, len(parts) - 1))), FINAL)
        if parts != expected:
            raise ValueError(f"expected at least two folds in order, then final: {list(expected)}")
        return parts

    @field_validator("filters")
    @classmethod
    def _each_filter_once(cls, filters: tuple[Filter, ...]) -> tuple[Filter, ...]:
        if len(set(filters)) < len(filters):
            raise ValueError("expected each filter at most once, in the order of application")
        return filters

    @property
    def folds(self) -> int:
        """Number of cross-validation folds."""
        return len(self.parts) - 1


class Evaluate(Section):
    batch_size: Positive
    resamples: Annotated[int, Field(ge=100)]
    confidence: Fraction
    seed: Count
    top_k: tuple[Annotated[int, Field(ge=2)], ...]
    slices: tuple[str, ...]
    min_slice: Positive


class Diagnose(Section):
    overfit_gap: Share
    underfit_accuracy: Share
    weak_recall: Share
    upscale_factor: PositiveFloat


class Serve(Section):
    images: Positive
    calls: Positive
    seconds: PositiveFloat
    timeout: PositiveFloat
    container: Literal["auto", "never", "required"]
    image: Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._:/@-]*$")]  # never taken for an option of docker's
    pull: bool


class Gate(Section):
    min_accuracy: Share
    min_balanced_accuracy: Share
    min_test_images: Positive
    min_new_class_recall: Share
    max_calibration_error: Share
    max_fold_spread: Share
    max_leaked_images: Count
    max_latency_ms: PositiveFloat | None
    max_size_mb: PositiveFloat | None
    max_test_uses: Positive
    min_gain: Annotated[float, Field(ge=-1, le=1)]
    min_gain_low: Annotated[float, Field(ge=-1, le=1)]
    max_class_loss: Share
    max_slice_loss: Share
    allow_dropped_classes: bool
    approval: Literal["never", "always", "borderline"]


class Promote(Section):
    # One path component that is also a TensorFlow Serving model name.
    model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class Registry(Section):
    location: str | None
    mlflow_uri: Annotated[str, Field(pattern=r"^https?://[^/]+")] | None


class Execution(Section):
    """Of the section `execution`, what a run itself needs to know; the rest is for whoever starts its tasks."""

    workers: Count
    remote: Annotated[str, Field(pattern=r"^s3://[^/]+")] | None

    @property
    def processes(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))


_SCHEDULERS = {"mode", "docker", "kubernetes"}  # keys of `execution` that dags/refit_settings.py reads


class Settings(Section):
    ingest: Ingest
    profile: Profile
    validate_: Annotated[Validate, Field(alias="validate")]  # pydantic's own name is taken
    shard: Shard
    augment: Augment
    train: Train
    evaluate: Evaluate
    diagnose: Diagnose
    serve: Serve
    gate: Gate
    promote: Promote
    registry: Registry
    execution: Execution


def load(path: Path) -> Settings:
    """Read and check a params file. Raises `SettingsError`."""
    return parse(read_params(path), origin=path.name)


def read_params(path: Path) -> dict[str, Any]:
    """The params file as plain mappings, unchecked, without what only a scheduler uses: neither when runs start nor
    where their tasks run is a property of a run.

    Raises `SettingsError` if it is no YAML mapping.
    """
    try:
        params = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SettingsError(
            f"Expected a params file at {path}, found none.", fix="restore params.yaml from the repository"
        ) from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path.name} is not YAML: {error}.", fix="mend the line that is named") from None
    if not isinstance(params, dict):
        raise SettingsError(
            f"{path.name}: expected one section per stage, got {type(params).__name__}.",
            fix="restore params.yaml from the repository",
        )
    params.pop("airflow", None)
    if isinstance(execution := params.get("execution"), dict):
        params["execution"] = {key: value for key, value in execution.items() if key not in _SCHEDULERS}
    return params


def remote_location() -> str | None:
    """execution.remote as this installation has it. Raises `SettingsError`."""
    path = params_file()
    return _remote_of(path, path.stat().st_mtime_ns if path.exists() else 0)


@functools.lru_cache(maxsize=4)
def _remote_of(path: Path, modified: int) -> str | None:
    section = read_params(path).get("execution")
    return section.get("remote") if isinstance(section, dict) else None


def parse(params: Mapping[str, Any], *, origin: str = "params.yaml") -> Settings:
    """Check plain mappings. Raises `SettingsError` naming every wrong key."""
    try:
        return Settings.model_validate(params)
    except ValidationError as error:
        problems = [_explain(dict(item)) for item in error.errors(include_url=False)]
        raise SettingsError(
            f"{origin}: " + "; ".join(problems) + ".",
            fix="params.yaml describes every key; --set changes one for a run",
        ) from None


def _explain(item: dict[str, Any]) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    match item["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(location[-1], _keys_beside(location[:-1]), n=1)
            return f"unknown key {key}" + (f", did you mean {'.'.join([*location[:-1], close[0]])}?" if close else "")
        case "missing":
            return f"{key} is missing"
        case _:
            message = item["msg"].removeprefix("Value error, ")
            return f"{key}: {message[0].lower()}{message[1:]}, got {item['input']!r}"


def _keys_beside(location: Iterable[str]) -> list[str]:
    section: Any = Settings
    for name in location:
        if get_origin(section) is dict:
            section = get_args(section)[1]
        else:
            fields = {field.alias or key: field for key, field in section.model_fields.items()}
            section = fields[name].annotation
    return [field.alias or key for key, field in section.model_fields.items()]


def with_overrides(params: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `params` with `section.key=value` texts applied; values are YAML.

    Raises `SettingsError` for a text of another form or a key that does not exist. Only phases may be new.
    """
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(params)))
    for text in overrides:
        matched = re.fullmatch(r"([a-z_]+(?:\.[a-z][a-z0-9_]*)+)=(.*)", text, flags=re.DOTALL)
        if not matched:
            raise SettingsError(
                f"--set expects section.key=value, got {text!r}.", fix="write for example --set train.batch_size=16"
            )
        *path, last = matched[1].split(".")
        section: Any = result
        free = path[:2] == ["train", "phases"]  # its keys are names and changes that the user chooses; `parse` checks
        for name in path:
            if free and isinstance(section, dict) and not isinstance(section.get(name), dict):
                section[name] = {}
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict) or (last not in section and not free):
            known = [f"{where}.{key}" for where, keys in _leaves(result) for key in keys]
            close = difflib.get_close_matches(matched[1], known, n=1)
            raise SettingsError(
                f"--set names the unknown key {matched[1]}" + (f", did you mean {close[0]}?" if close else "."),
                fix="params.yaml lists every key; those of airflow, and where tasks run, are set there alone",
            )
        try:
            section[last] = yaml.safe_load(matched[2])
        except yaml.YAMLError:
            raise SettingsError(f"--set {matched[1]}: {matched[2]!r} is not YAML.", fix="quote the value") from None
    return result


def _leaves(params: Mapping[str, Any], prefix: str = "") -> list[tuple[str, list[str]]]:
    """(dotted section, its keys) for every section at every depth."""
    found = []
    for name, section in params.items():
        if isinstance(section, dict):
            where = f"{prefix}{name}"
            found.append((where, list(section)))
            found.extend(_leaves(section, f"{where}."))
    return found


def refit_home() -> Path:
    """Where runs, cache and registry live: $REFIT_HOME, or .refit in the current directory."""
    return Path(os.environ.get("REFIT_HOME") or ".refit").absolute()


def driver() -> int | None:
    """The number of the process of `refit` that had this stage started; None if another program had."""
    return int(number) if (number := os.environ.get(DRIVER)) else None


def code_root() -> Path:
    """The folder with params.yaml, dvc.yaml, pipeline/ and components/ that this process was imported from."""
    return Path(__file__).resolve().parent.parent


def params_file() -> Path:
    """The settings of this installation: $REFIT_HOME/params.yaml where there is one, so that an image or a checkout
    needs no change, else the one beside the code."""
    own = refit_home() / "params.yaml"
    return own if own.exists() else code_root() / "params.yaml"
