"""Run by test_devices.py, alone or as one of the workers that TF_CONFIG names: trains small models in several ways.

Arguments: what to do, and where the results go. `replicas` has two logical CPUs take the place of two GPUs.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from pipeline import runtime, stage

runtime.prepare()

import keras  # noqa: E402
import numpy as np  # noqa: E402

from pipeline.training import devices as devices_module  # noqa: E402
from pipeline.training.devices import Devices  # noqa: E402

ROWS, BATCH, CHECKED, EPOCHS = 64, 16, 21, 2
STEPS = ROWS // BATCH


def data(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, 4)).astype(np.float32)
    return rows, (rows[:, 0] > 0).astype(np.int64)


class Batches(keras.utils.PyDataset):
    """Global batches of arrays, in another order in each epoch, as `views.Shuffled` gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.classes = data(ROWS, 0)
        self.random = np.random.default_rng(7)
        self.order = self.random.permutation(ROWS)

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        taken = self.order[index * BATCH : (index + 1) * BATCH]
        return self.rows[taken], self.classes[taken], 1 + self.classes[taken].astype(np.float32)

    def on_epoch_end(self) -> None:
        self.order = self.random.permutation(ROWS)


def endless(devices: Devices, rows: np.ndarray, classes: np.ndarray) -> Any:
    """As `records.batches` does: this worker's part, in batches of its share."""
    import tensorflow as tf

    whole = tf.data.Dataset.from_tensor_slices((rows, classes))
    part = whole.shard(devices.worker.count, devices.worker.number)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return part.with_options(options).batch(devices.share(BATCH)).repeat()


def checked(devices: Devices, rows: np.ndarray, classes: np.ndarray) -> Any:
    import tensorflow as tf

    mine = slice(devices.worker.number, None, devices.worker.count)
    return tf.data.Dataset.from_tensor_slices((rows[mine], classes[mine])).batch(4)


def build(normalised: bool, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    first = keras.layers.BatchNormalization(name="norm", momentum=0.5)(inputs) if normalised else inputs
    hidden = keras.layers.Dense(8, activation="relu")(first)
    return keras.Model(inputs, keras.layers.Dense(2, dtype="float32")(hidden))


def fit(devices: Devices, way: str) -> dict[str, Any]:
    """Weights and curves."""
    if way == "half":
        keras.config.set_dtype_policy("mixed_float16")
    with devices.scope():
        # Workers other than the chief begin elsewhere, to see that it does not matter.
        model = build(way == "normalised", seed=1 + devices.number)
        optimizer = keras.optimizers.AdamW(
            0.01,
            weight_decay=0.01,
            global_clipnorm=0.1 if way == "clipped" else None,
            use_ema=way == "averaged",
            ema_momentum=0.8,
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
    keras.config.set_dtype_policy("float32")
    callbacks = devices.connect(model)
    steps = None
    rows, classes = data(CHECKED, 1)
    if way == "endless":
        batches, steps, validation = endless(devices, *data(ROWS, 0)), STEPS, checked(devices, rows, classes)
    else:
        batches, validation = devices.feed(Batches()), devices.feed((rows, classes))
    history = model.fit(
        batches,
        epochs=EPOCHS,
        steps_per_epoch=steps,
        validation_data=validation,
        batch_size=BATCH,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    ).history
    return {"curves": history, "weights": [weights.tolist() for weights in model.get_weights()]}


def hand_out(devices: Devices, output: Path) -> list[bool]:
    """Whether the chief's file came, in several messages, and a file that the chief has not is gone."""
    devices_module._CHUNK = 1000
    folder = output.with_suffix("")
    folder.mkdir()
    known, unknown = folder / "known", folder / "unknown"
    content = bytes(range(256)) * 10 + b"end"
    if devices.chief:
        known.write_bytes(content)
    else:
        unknown.touch()
    devices.hand_out(known, unknown)
    return [known.read_bytes() == content, not unknown.exists()]


def on_two(output: Path, ways: list[str]) -> None:
    if keras.backend.backend() == "tensorflow" and output.name == "replicas.json":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
    devices = devices_module.current()
    with devices.watched():
        found = {way: fit(devices, way) for way in ways}
        handed = hand_out(devices, output)
        agreed = [float(value) for value in devices.first([np.float32(devices.number), np.int64(2**40)])]
        with devices.directory(output.parent / "written") as folder:
            (folder / "by.txt").write_text(str(devices.number))
    output.write_text(json.dumps(found | {"described": devices.describe(), "agreed": agreed, "handed": handed}))


def forever(output: Path) -> None:
    """Until another worker is lost."""
    devices = devices_module.current()
    with devices.watched():
        while True:
            devices.mean([1.0])
            output.touch()
            time.sleep(0.1)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    what, output, *ways = sys.argv[1:]
    if what == "forever":
        forever(Path(output))
    on_two(Path(output), ways)


if __name__ == "__main__":
    stage.run(main)
