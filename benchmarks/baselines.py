"""The contenders of `accuracy.py`, each measured on the folds of a run that Refit split (and, for its own, trained).

Features are of images that nothing was done to: float32 [N, C], averaged over the last map of the frozen backbone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from driving import folds_of
from numpy.typing import NDArray

from pipeline import runtime
from pipeline.evaluation import metrics

BATCH = 32
UNWEIGHTED, WEIGHTED = "logistic regression, C=0.01", "logistic regression, C=1, balanced"
NAIVE, REFIT = "naive recipe", "refit"

Features = NDArray[np.float32]
Classes = NDArray[np.int64]
Fitted = Callable[[Features], Classes]


def logistic_regression(features: Features, classes: Classes, **options: Any) -> Fitted:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, **options)).fit(features, classes)
    predict: Fitted = fitted.predict
    return predict


def naive_head(features: Features, classes: Classes, *, seed: int) -> Fitted:
    import keras

    keras.utils.set_random_seed(seed)
    head = keras.Sequential(
        [
            keras.Input(features.shape[1:]),
            keras.layers.Dense(1024, activation="relu"),
            keras.layers.Dense(int(classes.max()) + 1, activation="softmax"),
        ]
    )
    head.compile(keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy", jit_compile=False)
    head.fit(features, classes, batch_size=BATCH, epochs=5, verbose=0)

    def predict(asked: Features) -> Classes:
        answers: Classes = head.predict(asked, verbose=0).argmax(axis=1)
        return answers

    return predict


def embed(run: Path, classes: Mapping[str, int], *, naively: bool) -> dict[str, Features]:
    """Image id to features. `naively`: the backbone is fed pixels / 255, whatever it expects."""
    import keras

    from pipeline.backbones import registry
    from pipeline.backbones.scaling import InputScaling
    from pipeline.dataset import records, shard_index
    from pipeline.settings import load

    settings = load(run / "params.yaml").train
    entry = registry.check(settings)
    backbone = registry.build(entry, weights=settings.weights, size=settings.input_size)
    backbone.trainable = False
    images = keras.Input((settings.input_size, settings.input_size, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(images) if naively else InputScaling(entry.scaling)(images)
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(backbone(scaled)))
    model.compile(jit_compile=False)
    index = shard_index.load_index(run / "data/shards")
    batches = records.dataset(run / "data/shards", index, classes, size=settings.input_size).batch(BATCH)
    found: dict[str, Features] = {}
    for batch in batches.as_numpy_iterator():
        pictures = batch["image"]
        filled = np.concatenate([pictures, np.repeat(pictures[-1:], BATCH - len(pictures), axis=0)])
        found.update(zip((name.decode() for name in batch["id"]), model.predict_on_batch(filled), strict=False))
    if missing := classes.keys() - found.keys():
        sys.exit(f"{len(missing)} images are not in the shards of {run}")
    return found


def refit_answers(run: Path, fold: int, ids: tuple[str, ...], classes: int) -> Classes:
    from pipeline.dataset import shard_index
    from pipeline.evaluation import measuring

    shards = run / "data/shards"
    index = shard_index.load_index(shards)
    model = run / f"models/fold-{fold}/model.keras"
    answers = measuring.predict(model, classes, shards, index, ids, batch_size=BATCH, what=f"fold {fold}")
    found = dict(zip(answers.ids, answers.probabilities.argmax(axis=1), strict=True))
    return np.array([found[key] for key in ids])


def measure(contender: str, run: Path, seed: int) -> list[float]:
    """Seconds, core seconds, then accuracy and balanced accuracy of each fold in turn."""
    runtime.prepare()
    start = time.perf_counter()
    classes, folds = folds_of(run)
    number = max(classes.values()) + 1
    fitters: dict[str, Callable[[Features, Classes], Fitted]] = {
        UNWEIGHTED: lambda features, labels: logistic_regression(features, labels, C=0.01),
        WEIGHTED: lambda features, labels: logistic_regression(features, labels, C=1.0, class_weight="balanced"),
        NAIVE: lambda features, labels: naive_head(features, labels, seed=seed),
    }
    features = {} if contender == REFIT else embed(run, classes, naively=contender == NAIVE)
    scores: list[float] = []
    for position, fold in enumerate(folds):
        labels = np.array([classes[key] for key in fold.measured])
        if contender == REFIT:
            answers = refit_answers(run, position, fold.measured, number)
        else:
            learned = [*fold.learned, *fold.stopping]
            known = np.stack([features[key] for key in learned])
            predict = fitters[contender](known, np.array([classes[key] for key in learned]))
            answers = predict(np.stack([features[key] for key in fold.measured]))
        matrix = metrics.confusion(labels, answers, number)
        scores += [metrics.accuracy(labels, answers), metrics.balanced_accuracy(matrix)]
    return [time.perf_counter() - start, sum(os.times()[:4]), *scores]
