"""Fine-tuning as Keras scripts usually do it, fold after fold: the other side of `train.py`, which writes its plan.

    python benchmarks/keras_script.py PLAN.json

Every epoch reads, decodes and alters the images by ImageDataGenerator and runs the whole backbone on them. It gets all
that is known to matter: the input that the backbone expects, class weights, BatchNorm kept frozen, the best weights
restored, the same blocks, rates, epochs and patience as Refit.

The last line printed is JSON: for each fold the seconds of each epoch of each phase, `labels` and `answers` of the
images in its folder `test`, and the seconds that `answering` took.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import runtime


def fold(plan: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Trains on the images of `folder`/train and stops by those of `folder`/val."""
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    from pipeline.backbones import registry

    keras.backend.clear_session()
    keras.utils.set_random_seed(plan["seed"])
    entry = registry.get(plan["backbone"])
    scaled = preprocessing(entry.scaling)
    size, classes = (plan["size"], plan["size"]), plan["classes"]
    unaltered = ImageDataGenerator(preprocessing_function=scaled)
    altered = ImageDataGenerator(preprocessing_function=scaled, **plan["augmentation"])

    def images(generator: Any, split: str, *, shuffle: bool) -> Any:
        return generator.flow_from_directory(
            str(folder / split),
            target_size=size,
            classes=classes,
            class_mode="sparse",
            batch_size=plan["batch_size"],
            shuffle=shuffle,
            seed=plan["seed"],
        )

    training, validation = images(altered, "train", shuffle=True), images(unaltered, "val", shuffle=False)
    base = registry.build(entry, weights=plan["weights"], size=plan["size"])
    model = keras.Sequential(
        [
            keras.Input((*size, 3)),
            base,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(plan["dropout"]),
            keras.layers.Dense(len(classes), activation="softmax"),
        ]
    )
    counts = np.bincount(training.classes, minlength=len(classes))
    weights = {number: counts.sum() / (len(counts) * count) for number, count in enumerate(counts)}
    epochs: list[list[float]] = []
    for phase in plan["phases"]:
        freeze(base, phase["frozen"])
        optimizer = keras.optimizers.Adam(phase["learning_rate"])
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        stop = keras.callbacks.EarlyStopping("val_loss", patience=phase["patience"], restore_best_weights=True)
        times = [time.perf_counter()]
        clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_, times=times: times.append(time.perf_counter()))
        model.fit(
            training,
            validation_data=validation,
            epochs=min(phase["epochs"], plan["epochs_timed"] or phase["epochs"]),
            class_weight=weights,
            callbacks=[stop, clock],
            verbose=0,
        )
        epochs.append(np.diff(times).tolist())
    model.save(folder / "model.keras")
    start = time.perf_counter()
    held_out = images(unaltered, "test", shuffle=False)
    answers = model.predict(held_out, verbose=0).argmax(axis=1).tolist()
    took = time.perf_counter() - start
    return {"epochs": epochs, "labels": held_out.classes.tolist(), "answers": answers, "answering": took}


def preprocessing(scaling: str) -> Any:
    """Of an image in a NumPy array. EfficientNet-Lite is not in keras.applications; its authors' way is `lite`."""
    from keras.applications.imagenet_utils import preprocess_input

    if scaling == "lite":
        return lambda pixels: (pixels - 127.0) / 128.0
    return None if scaling == "none" else partial(preprocess_input, mode=scaling)


def freeze(base: Any, until: str | None) -> None:
    """Layers above the named one learn, all if it is None, none if there is no such layer; BatchNorm never does."""
    from keras.layers import BatchNormalization

    base.trainable = True
    learns = until is None
    for layer in base.layers:
        layer.trainable = learns and not isinstance(layer, BatchNormalization)
        learns = learns or layer.name == until


if __name__ == "__main__":
    runtime.prepare()
    given = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps([fold(given, Path(folder)) for folder in given["folds"]]))
