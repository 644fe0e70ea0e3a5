"""How a run's model compares with a linear classifier on the same frozen features and the same split.

    python benchmarks/linear_probe.py RUN_DIRECTORY

Prints one table. The linear classifier is scikit-learn's logistic regression on standardised, globally pooled
features of the run's backbone, C chosen on the val split, then fitted on train and val together.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline import files, runtime
from pipeline.settings import load

STRENGTHS = (0.001, 0.01, 0.1, 1.0)


def main() -> None:
    runtime.prepare()
    import keras
    from rich.console import Console
    from rich.table import Table
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from pipeline.backbones import registry
    from pipeline.backbones.scaling import InputScaling
    from pipeline.dataset import records, shard_index

    run = Path(sys.argv[1])
    settings = load(run / "params.yaml").train
    entry = registry.check(settings)
    backbone = registry.build(entry, weights=settings.weights, size=settings.input_size)
    images = keras.Input((settings.input_size, settings.input_size, 3), dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(backbone(InputScaling(entry.scaling)(images)))
    embed = keras.Model(images, pooled)
    embed.compile(jit_compile=False)

    rows = pq.read_table(run / "data/assignment.parquet").to_pylist()
    index = shard_index.load_index(run / "data/shards")
    features: dict[str, np.ndarray] = {}
    classes: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        keep = {row["image_id"]: row["class"] for row in rows if row["split"] == split}
        dataset = records.dataset(run / "data/shards", index, keep, size=settings.input_size, splits=(split,))
        found = [
            (embed.predict_on_batch(batch["image"]), batch["class"])
            for batch in dataset.batch(settings.batch_size).as_numpy_iterator()
        ]
        features[split] = np.concatenate([values for values, _ in found])
        classes[split] = np.concatenate([labels for _, labels in found])

    def fitted(strength: float, *splits: str):  # type: ignore[no-untyped-def]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=2000))
        return model.fit(
            np.concatenate([features[split] for split in splits]), np.concatenate([classes[split] for split in splits])
        )

    def on_val(strength: float) -> float:
        return float(balanced_accuracy_score(classes["val"], fitted(strength, "train").predict(features["val"])))

    best = max(STRENGTHS, key=on_val)
    answers = fitted(best, "train", "val").predict(features["test"])
    measured = files.read_json(run / "metrics/evaluate.json")["test"]
    table = Table("model", "test images", "accuracy", "balanced accuracy")
    table.add_row(
        f"logistic regression on frozen {entry.name}, C={best}",
        str(len(answers)),
        f"{accuracy_score(classes['test'], answers):.3f}",
        f"{balanced_accuracy_score(classes['test'], answers):.3f}",
    )
    table.add_row(
        "refit run", str(measured["images"]), f"{measured['accuracy']:.3f}", f"{measured['balanced_accuracy']:.3f}"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
