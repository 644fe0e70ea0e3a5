"""Fine-tuning one part: weights in, a recipe's phases, models out."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa

from pipeline import files
from pipeline.backbones import registry
from pipeline.dataset import records
from pipeline.dataset.shard_index import load_index
from pipeline.settings import FINAL, Settings, Train, refit_home
from pipeline.training import card, checkpoints, curves, forms, histories, phases, recipes, roles
from pipeline.training import classifier as assembly
from pipeline.training import environment as environments
from pipeline.training import precision as precisions
from pipeline.training.checkpoints import Checkpoint
from pipeline.training.classifier import Classifier
from pipeline.training.devices import Devices
from pipeline.training.feature_cache import Cache
from pipeline.training.frozen import Frozen
from pipeline.training.part_images import PartImages
from pipeline.training.phases import Session

logger = logging.getLogger(__name__)

PARITY_IMAGES = 16


@dataclass(frozen=True)
class Places:
    """Files and folders that one training reads and writes.

    shards: folder of the shards' index.
    warm_start: JSON with the live model's file, `model`, if that is what training starts from.
    models: a folder that exists, for model.keras and its other forms, history.json and card.md.
    logs: a folder that exists, for TensorBoard.
    curves: CSV file.
    checkpoints: a folder that this training alone uses, to go on from after an interruption; removed at the end.
    """

    shards: Path
    warm_start: Path
    models: Path
    logs: Path
    curves: Path
    checkpoints: Path


def train(
    part: str,
    settings: Settings,
    places: Places,
    devices: Devices,
    *,
    assignment: pa.Table,
    environment: Mapping[str, str],
) -> None:
    """Train one part and write all that `places` names.

    Args:
        part: `fold-0`, ... or `final`, which alone is written in other forms than model.keras.
        devices: what this process trains on, see `devices.current`.
        assignment: data/assignment.parquet.
        environment: variables of the process.

    Raises:
        SettingsError: the backbone is unknown, or takes other sizes or has fewer blocks; a form cannot be had.
        DataError: a class has no training images, or the shards lack images of the assignment.
        ModelError: the weights cannot be had, training diverged, or the written model answers otherwise.
        TransientError: told to stop (SIGTERM).
    """
    chosen = settings.train
    wanted = ("saved_model", *chosen.export) if part == FINAL else ()
    forms.check(wanted, chosen.filters)
    keras.utils.set_random_seed(chosen.seed)
    index = load_index(places.shards)
    entry = recipes.check(chosen)
    recipe = recipes.resolve(chosen)
    images = PartImages(
        places.shards,
        index,
        roles.roles(assignment, part, len(index.classes)),
        chosen.input_size,
        f"{settings.shard.max_side} {settings.shard.quality}",
    )
    logger.info("%s: %d training and %d validation images", part, len(images.roles.train), len(images.roles.val))
    weights = _weights(part, chosen, places.warm_start)
    precision = precisions.policy(chosen.precision, entry.name)

    def build(weights: str, policy: str) -> Classifier:
        keras.config.set_dtype_policy(policy)
        try:
            backbone = registry.build(entry, weights=weights, size=chosen.input_size)
            return assembly.build(
                backbone, entry, classes=index.classes, head=chosen.head, hidden=recipe.hidden, filters=chosen.filters
            )
        finally:
            keras.config.set_dtype_policy("float32")

    cache = Cache(refit_home() / "cache/features", int(chosen.cache_gigabytes * 1e9))
    devices.hand_out(*(places.checkpoints / name for name in checkpoints.FILES))
    checkpoint = Checkpoint(places.checkpoints, _identity(part, settings, assignment, weights, images.encoding))
    with devices.scope(), records.damage_named(places.shards, index):
        model = build(weights, precision)
        frozen = Frozen(model, images, cache, batch_size=chosen.batch_size, precision=precision)
        planned = phases.plan(recipe.phases, frozen, chosen, settings.augment)
        fitted = phases.run(Session(model, frozen, chosen, places.logs, checkpoint, devices), planned)
    cache.trim()
    whole = model.whole
    if precision != "float32" or devices.kind == "mirrored":
        # Files compute in float32, as CPUs are slow in anything else, and hold variables of one device.
        whole = build(registry.NONE, "float32").whole
        whole.set_weights([np.asarray(weight) for weight in model.whole.weights])
    if part == FINAL:
        parity = forms.write(whole, places.models, wanted, images.first(PARITY_IMAGES))
    else:
        parity = {}  # evaluate measures what it loads from the file, and nobody else sees a fold's model
        whole.save(places.models / forms.KERAS)
    described = {
        "environment": environments.describe(
            seed=chosen.seed, precision=precision, deterministic=False, variables=environment
        ),
        "devices": devices.describe(),
        "backbone": entry.name,
        "weights": weights,
        "input_size": chosen.input_size,
        "filters": list(chosen.filters),
        "parity": parity,
    }
    history = histories.history(chosen, recipe, planned, fitted, images, blocks=entry.blocks) | described
    files.write_json(places.models / "history.json", history)
    curves.write(places.curves, history["phases"])
    card.write(places.models / "card.md", history, name=settings.promote.model, images=images.counts)
    checkpoint.clear()
    logger.info("%s: kept the weights of phase %s", part, history["kept_phase"])


def _weights(part: str, settings: Train, warm_start: Path) -> str:
    """What `registry.build` takes. Without a live model the first training starts from ImageNet's weights.

    So does a fold: the live model has learned from the images that the fold is measured on.
    """
    if settings.weights != registry.LIVE:
        return settings.weights
    model = files.read_json(warm_start).get("model")
    if part == FINAL and model is not None:
        return str(model)
    logger.info("%s: starts from ImageNet's weights, %s", part, "as folds must" if model else "no model is live yet")
    return registry.IMAGENET


def _identity(part: str, settings: Settings, assignment: pa.Table, weights: str, encoding: str) -> str:
    """Of all that decides what training gives, so that no checkpoint of another one is gone on with."""
    content = [
        part,
        settings.train.model_dump(mode="json"),
        settings.augment.model_dump(mode="json"),
        weights,
        encoding,
    ]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for column in ("image_id", "class", "split", "fold", "copies"):
        digest.update(json.dumps(assignment[column].to_pylist()).encode())
    return digest.hexdigest()
