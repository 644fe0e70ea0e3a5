"""Fine-tuning one part: first the head on frozen features, then the last blocks of the backbone with it."""

from __future__ import annotations

import functools
import logging
import platform
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from pipeline import files
from pipeline.backbones import registry
from pipeline.dataset import records
from pipeline.dataset.shard_index import Index, load_index
from pipeline.errors import DataError
from pipeline.settings import FINAL, Augment, Train
from pipeline.training import classifier as assembly
from pipeline.training import export, fitting, views
from pipeline.training.classifier import Classifier
from pipeline.training.fitting import Phase, Watch
from pipeline.training.views import Recipe, Shuffled

logger = logging.getLogger(__name__)

CACHE_BYTES = 4 * 2**30  # of maps kept in memory; above, the second phase computes them anew in each epoch
PARITY_IMAGES = 16


@dataclass(frozen=True)
class Roles:
    """Image id to class: what is learned from, and what early stopping goes by.

    `copies`: how many augmented copies of the images of `train` the shards hold besides.
    """

    train: dict[str, int]
    val: dict[str, int]
    copies: int


def roles(assignment: pa.Table, part: str, classes: int) -> Roles:
    """Splits `train` and `val`, less the fold that the part is measured on. Never test or quarantine.

    Raises `DataError` when a class has no training image or no image is left to stop by.
    """
    fold = None if part == FINAL else int(part.removeprefix("fold-"))
    chosen: dict[str, dict[str, int]] = {"train": {}, "val": {}}
    copies = 0
    for row in assignment.select(["image_id", "class", "split", "fold", "copies"]).to_pylist():
        if row["split"] in chosen and row["fold"] != fold:
            chosen[row["split"]][row["image_id"]] = row["class"]
            copies += row["copies"]
    if missing := sorted(set(range(classes)) - set(chosen["train"].values())):
        raise DataError(
            f"{part}: expected training images of every class, found none of class number {missing[0]}.",
            fix="add images of it, or lower shard.val_share and shard.test_share",
        )
    if not chosen["val"]:
        raise DataError(f"{part}: expected validation images, found none.", fix="raise shard.val_share or add images")
    return Roles(chosen["train"], chosen["val"], copies)


def train(
    part: str, settings: Train, augment: Augment, *, assignment: pa.Table, shards: Path, models: Path, logs: Path
) -> None:
    """Train one part and write model.keras, history.json and, for `final`, saved_model/ into `models`.

    Args:
        part: `fold-0`, ... or `final`.
        assignment: data/assignment.parquet.
        shards: folder of the shards' index.
        models, logs: folders that exist; TensorBoard's files go to `logs`.

    Raises:
        SettingsError: the backbone is unknown, or takes other sizes or has fewer blocks.
        DataError: a class has no training images, or the shards lack images of the assignment.
        ModelError: the weights cannot be had, training diverged, or the written model answers otherwise.
    """
    keras.utils.set_random_seed(settings.seed)
    index = load_index(shards)
    chosen = roles(assignment, part, len(index.classes))
    entry = registry.check(settings)
    backbone = registry.build(entry, weights=settings.weights, size=settings.input_size)
    model = assembly.build(
        backbone,
        entry,
        classes=index.classes,
        blocks=settings.finetune.blocks,
        dropout=settings.head.dropout,
        filters=settings.filters,
    )
    data = _Data(shards, index, chosen, settings, views.recipe(settings.head.views, augment, index.classes))
    logger.info("%s: %d training and %d validation images", part, len(chosen.train), len(chosen.val))
    with records.damage_named(shards, index):
        phases, kept = _run_phases(model, data, logs)
        examples = _first(data.learned(0), PARITY_IMAGES)
    export.save(model.whole, models / "model.keras", examples)
    if part == FINAL:
        export.save_serving(model.whole, models / "saved_model", examples)
    history = {
        "phases": [
            {"name": phase.name, **phase.curves, "best_epoch": phase.best_epoch, "seconds": round(phase.seconds, 2)}
            for phase in phases
        ],
        "kept_phase": kept,
        "classes": list(index.classes),
        "images": {"train": len(chosen.train), "val": len(chosen.val), "copies": chosen.copies},
        "environment": _environment(settings),
    }
    files.write_json(models / "history.json", history)
    logger.info("%s: kept the weights of phase %s", part, kept)


@dataclass(frozen=True)
class _Data:
    """The images of one part, and how they are altered."""

    shards: Path
    index: Index
    roles: Roles
    settings: Train
    recipe: Recipe

    @property
    def count(self) -> int:
        """Training images, with the copies that the shards hold."""
        return len(self.roles.train) + self.roles.copies

    def learned(self, view: int) -> tf.data.Dataset:
        return self._one_pass("train", self.roles.train, view)

    def checked(self, view: int = 0) -> tf.data.Dataset:
        return self._one_pass("val", self.roles.val, view)

    def endless(self) -> tf.data.Dataset:
        return records.batches(
            self.shards,
            self.index,
            self.roles.train,
            size=self.settings.input_size,
            batch_size=min(self.settings.batch_size, self.count),
            policy=self.recipe.policy,
            seed=self.recipe.seed,
        )

    def _one_pass(self, split: str, keep: dict[str, int], view: int) -> tf.data.Dataset:
        return records.dataset(
            self.shards,
            self.index,
            keep,
            size=self.settings.input_size,
            splits=(split,),
            copies=True,
            view=view,
            policy=self.recipe.policy,
            seed=self.recipe.seed,
        )


def _run_phases(model: Classifier, data: _Data, logs: Path) -> tuple[list[Phase], str]:
    """Train `model` in place. Returns the phases and the name of the one whose weights it has."""
    settings, altered = data.settings, data.recipe
    unaltered = replace(altered, altered=0)
    finetunes = settings.finetune.blocks > 0
    val = len(data.roles.val)
    maps = views.map_bytes(model, data.count, altered) + views.map_bytes(model, val, unaltered)
    # Pictures that are mixed anew in each epoch cannot be kept.
    keep_maps = finetunes and maps <= CACHE_BYTES and not altered.policy.mixes
    embed = functools.partial(views.embed, model, batch_size=settings.batch_size, keep_maps=keep_maps)
    learned = embed(data.learned, data.count, altered, what="embed training images")
    checked = embed(data.checked, val, unaltered, what="embed validation images")
    weights = views.class_weights(
        learned.classes, model.head.output.shape[-1], balanced=settings.head.class_weights == "balanced"
    )
    fit = functools.partial(
        fitting.fit, batch_size=settings.batch_size, label_smoothing=settings.label_smoothing, logs=logs
    )

    assembly.standardise(model, learned.features.reshape(-1, learned.features.shape[-1]))
    shuffled = functools.partial(Shuffled, batch_size=settings.batch_size, seed=settings.seed)
    batches = shuffled(learned.features, learned.classes, weights, passes=len(learned.features))
    optimizer, watch = _head(settings, len(learned.classes) * batches.passes)
    first = fit(model.head, batches, (checked.features[0], checked.classes), optimizer, watch)
    if not finetunes:
        return [first], first.name

    before = model.upper.get_weights()
    assembly.unfreeze(model)
    steps = max(1, len(learned.classes) // settings.batch_size)
    optimizer, watch = _finetuning(settings, steps, len(learned.classes))
    if learned.maps is not None and checked.maps is not None:
        validation = (checked.maps[0].astype(np.float32), checked.classes)
        second = fit(model.upper, shuffled(learned.maps, learned.classes, weights), validation, optimizer, watch)
    else:
        if altered.policy.mixes:
            logger.info("images are mixed: inputs of the unfrozen blocks are computed anew in each epoch")
        else:
            logger.info("inputs of the unfrozen blocks would take %.0f MiB: computed anew in each epoch", maps / 2**20)
        images = keras.Input(model.whole.input.shape[1:], dtype="uint8")
        logits = views.altering(keras.Model(images, model.upper(model.lower(images))), altered)
        endless = views.online(data.endless(), weights, altered)
        validation = views.unaltered(data.checked(), val, altered, batch_size=settings.batch_size)
        second = fit(logits, endless, validation, optimizer, watch, steps=steps)
    if second.best_loss >= first.best_loss:
        model.upper.set_weights(before)
        return [first, second], first.name
    return [first, second], second.name


def _head(settings: Train, images: int) -> tuple[keras.optimizers.Optimizer, Watch]:
    """AdamW at a constant rate, and the watch of the first phase."""
    plan = settings.head
    optimizer = keras.optimizers.AdamW(plan.learning_rate, weight_decay=plan.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer, Watch("head", images=images, epochs=plan.epochs, patience=plan.patience)


def _finetuning(settings: Train, steps: int, images: int) -> tuple[keras.optimizers.Optimizer, Watch]:
    """AdamW on a cosine schedule with warm-up over a tenth of all steps, and the watch of the second phase."""
    plan = settings.finetune
    total = plan.epochs * steps
    warmup = max(1, total // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        plan.learning_rate / 100,
        max(1, total - warmup),
        warmup_target=plan.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.head.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer, Watch("finetune", images=images, epochs=plan.epochs, patience=plan.patience)


def _first(images: tf.data.Dataset, count: int) -> NDArray[np.uint8]:
    return np.stack([found["image"] for found in images.take(count).as_numpy_iterator()])


def _environment(settings: Train) -> dict[str, Any]:
    """What a reader needs to repeat the training."""
    return {
        "python": platform.python_version(),
        "keras": keras.version(),
        "tensorflow": metadata.version("tensorflow"),
        "numpy": np.__version__,
        "backend": keras.backend.backend(),
        "devices": [str(device) for device in keras.distribution.list_devices()],
        "seed": settings.seed,
        "backbone": settings.backbone,
        "weights": settings.weights,
        "input_size": settings.input_size,
        "filters": list(settings.filters),
    }
