"""Run by test_jax.py with KERAS_BACKEND=jax: trains on shards, saves altered pixels. Arguments: workspace, output."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq

from pipeline import files, settings
from pipeline.backbones import registry
from pipeline.dataset import augment, presets, records, shard_index
from pipeline.dataset.presets import Policy
from pipeline.training import devices, fitting, trainer, views
from pipeline.training.recipes import Phase
from pipeline.training.trainer import Places
from pipeline.training.views import Alteration
from tests.pipeline.training import tiny

SIZE = 16


def pixels() -> dict[str, np.ndarray]:
    """What the presets, and all ways to fill, make of noise."""
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), np.uint8)
    policies = dict(presets.PRESETS) | {
        fill: Policy(fill=fill, rotation=0.5, translation=0.6, zoom=0.5, shear=0.3)
        for fill in ("nearest", "reflect", "wrap", "constant")
    }
    return {
        name: keras.ops.convert_to_numpy(
            augment.altered(images, list("abcdef"), range(1, 7), [True] * 6, policy=policy, seed=3)
        )
        for name, policy in policies.items()
    }


def train(folder: Path, policy: Policy) -> None:
    index = shard_index.load_index(folder)
    ids = {line.split()[0]: int(line.split()[1]) for line in (folder / "classes.txt").read_text().splitlines()}
    endless = records.batches(folder, index, ids, size=SIZE, batch_size=8, policy=policy, seed=1)
    alteration = Alteration(0, 1, policy, (True,) * 3)
    inputs = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    model = views.altering(keras.Model(inputs, keras.layers.Dense(3)(means)), alteration)
    phase = Phase("finetune", epochs=8, patience=8, learning_rate=0.1, warmup=0.1, ema=0.5, clip_norm=10.0)
    fitted = fitting.fit(
        model,
        phase,
        lambda epoch: views.online(endless, np.ones(3, np.float32), alteration),
        views.unaltered(
            records.dataset(folder, index, ids, size=SIZE, splits=("train",)), 24, alteration, batch_size=8
        ),
        images=24,
        steps=3,
        batch_size=8,
        label_smoothing=0.1,
        rates={},
        logs=folder / "logs",
        checkpoint=None,
    )
    losses = fitted.curves["val_loss"]
    if not min(losses) < losses[0]:
        raise SystemExit(f"expected the loss to fall, it went {losses}")


def train_a_part(root: Path) -> None:
    """Both phases, from cached maps and online, and the file that is written."""
    registry._entries = lambda: (tiny.ENTRY,)
    params = settings.read_params(settings.code_root() / "params.yaml")
    quick = ["train.backbone=tiny", f"train.input_size={tiny.SIZE}", "train.batch_size=8", "train.views=1"]
    short = ["train.phases.every.epochs=3", "train.phases.finetune.unfreeze.top=1"]
    for name, more in (("cached", []), ("online", ["augment.preset=strong"])):
        folder = root / name
        places = Places(
            shards=root / "data/shards",
            warm_start=root / "warm_start.json",
            models=folder / "models",
            logs=folder / "logs",
            curves=folder / "curves.csv",
            checkpoints=folder / "checkpoints",
        )
        places.models.mkdir(parents=True)
        table = pq.read_table(root / "data/assignment.parquet")
        chosen = settings.parse(settings.with_overrides(params, [*quick, *short, *more]))
        trainer.train("fold-0", chosen, places, devices.current(), assignment=table, environment={})
        history = files.read_json(places.models / "history.json")
        if [phase["cached"] for phase in history["phases"]] != [True, name == "cached"]:
            raise SystemExit(f"expected the second phase {name}, got {history['phases']}")
        if not (places.models / "model.keras").is_file():
            raise SystemExit("expected a model, found none")


if __name__ == "__main__":
    if keras.backend.backend() != "jax":
        raise SystemExit(f"expected the backend jax, it is {keras.backend.backend()}")
    root, output = Path(sys.argv[1]), Path(sys.argv[2])
    np.savez(output, **pixels())
    for name in ("standard", "strong"):
        train(root / "data/shards", presets.PRESETS[name])
    train_a_part(root)
