"""Fine-tuning one part: weights in, a recipe's phases, models out."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import keras
import pyarrow as pa

from pipeline import files
from pipeline.backbones import registry
from pipeline.dataset import records
from pipeline.dataset.shard_index import load_index
from pipeline.settings import FINAL, Settings, Train, refit_home
from pipeline.training import classifier as assembly
from pipeline.training import export, histories, phases, recipes, roles
from pipeline.training.checkpoints import Checkpoint
from pipeline.training.feature_cache import Cache
from pipeline.training.frozen import Frozen
from pipeline.training.part_images import PartImages

logger = logging.getLogger(__name__)

PARITY_IMAGES = 16


def train(
    part: str,
    settings: Settings,
    *,
    assignment: pa.Table,
    shards: Path,
    warm_start: Path,
    models: Path,
    logs: Path,
    checkpoints: Path,
) -> None:
    """Train one part and write model.keras, history.json and, for `final`, saved_model/ into `models`.

    Args:
        part: `fold-0`, ... or `final`.
        assignment: data/assignment.parquet.
        shards: folder of the shards' index.
        warm_start: JSON with the live model's file, `model`, if that is what training starts from.
        models, logs: folders that exist; TensorBoard's files go to `logs`.
        checkpoints: folder that this training alone uses, to go on from after an interruption; removed at the end.

    Raises:
        SettingsError: the backbone is unknown, or takes other sizes or has fewer blocks.
        DataError: a class has no training images, or the shards lack images of the assignment.
        ModelError: the weights cannot be had, training diverged, or the written model answers otherwise.
        TransientError: told to stop (SIGTERM).
    """
    chosen = settings.train
    keras.utils.set_random_seed(chosen.seed)
    index = load_index(shards)
    entry = recipes.check(chosen)
    recipe = recipes.resolve(chosen)
    images = PartImages(
        shards,
        index,
        roles.roles(assignment, part, len(index.classes)),
        chosen.input_size,
        f"{settings.shard.max_side} {settings.shard.quality}",
    )
    weights = _weights(part, chosen, warm_start)
    backbone = registry.build(entry, weights=weights, size=chosen.input_size)
    model = assembly.build(
        backbone, entry, classes=index.classes, head=chosen.head, hidden=recipe.hidden, filters=chosen.filters
    )
    cache = Cache(refit_home() / "cache/features", int(chosen.cache_gigabytes * 1e9))
    frozen = Frozen(
        model,
        images,
        cache,
        batch_size=chosen.batch_size,
        precision="float32",
    )
    checkpoint = Checkpoint(checkpoints, _identity(part, settings, assignment, weights))
    logger.info("%s: %d training and %d validation images", part, len(images.roles.train), len(images.roles.val))
    with records.damage_named(shards, index):
        trained = phases.run(model, frozen, recipe.phases, chosen, settings.augment, logs=logs, checkpoint=checkpoint)
        examples = images.first(PARITY_IMAGES)
    cache.trim()
    export.save(model.whole, models / "model.keras", examples)
    if part == FINAL:
        export.save_serving(model.whole, models / "saved_model", examples)
    history = histories.history(chosen, recipe, trained, images)
    files.write_json(models / "history.json", history)
    checkpoint.clear()
    logger.info("%s: kept the weights of phase %s", part, history["kept_phase"])


def _weights(part: str, settings: Train, warm_start: Path) -> str:
    """What `registry.build` takes. Raises nothing: without a live model the first training starts from ImageNet's.

    A fold does too: the live model has learned from the images that the fold is measured on.
    """
    if settings.weights != registry.LIVE:
        return settings.weights
    model = files.read_json(warm_start).get("model")
    if part == FINAL and model is not None:
        return str(model)
    logger.info("%s: starts from ImageNet's weights, %s", part, "as folds must" if model else "no model is live yet")
    return registry.IMAGENET


def _identity(part: str, settings: Settings, assignment: pa.Table, weights: str) -> str:
    """Of all that decides what training gives, so that no checkpoint of another one is gone on with."""
    content = [part, settings.train.model_dump(mode="json"), settings.augment.model_dump(mode="json"), weights]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for column in ("image_id", "class", "split", "fold", "copies"):
        digest.update(json.dumps(assignment[column].to_pylist()).encode())
    return digest.hexdigest()
