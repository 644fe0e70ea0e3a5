"""A model's answers on chosen images of the shards."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from pipeline.dataset import records
from pipeline.dataset.shard_index import Index
from pipeline.errors import DataError, ModelError
from pipeline.progress import track
from pipeline.training import export


@dataclass(frozen=True)
class Answers:
    """`ids` in a fixed order, sorted; `probabilities` float32 [N, classes of the model], rows as in `ids`."""

    ids: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]


def predict(
    model_file: Path,
    classes: int,
    shards: Path,
    index: Index,
    ids: Sequence[str],
    *,
    batch_size: int,
    what: str,
) -> Answers:
    """Run the model over the images `ids` of the shards. The model is released before this returns.

    Raises `ModelError` if it does not give `classes` finite probabilities, `DataError` if the shards lack an image.
    """
    model = export.load(model_file)
    try:
        if model.output_shape[-1] != classes:
            raise ModelError(
                f"Expected {classes} probabilities from {model_file}, its output is {model.output_shape}.",
                fix="train again: the model does not belong to these shards",
            )
        found = _run(model, shards, index, ids, batch_size=batch_size, what=what)
    finally:
        del model
        keras.utils.clear_session()
        gc.collect()
    if found.keys() != set(ids):
        raise DataError(
            f"Expected {len(set(ids))} images in the shards {shards}, found {len(found)} of them.",
            fix="run the shard stage again",
        )
    ordered = tuple(sorted(found))
    probabilities = (
        np.stack([found[image_id] for image_id in ordered]) if ordered else np.empty((0, classes), np.float32)
    )
    if not np.isfinite(probabilities).all():
        raise ModelError(f"{model_file} answers with NaN or infinity.", fix="train again with a lower learning rate")
    return Answers(ordered, probabilities)


def _run(
    model: keras.Model, shards: Path, index: Index, ids: Sequence[str], *, batch_size: int, what: str
) -> Mapping[str, npt.NDArray[np.float32]]:
    if not ids:
        return {}
    images = records.dataset(shards, index, dict.fromkeys(ids, 0), size=model.input_shape[1])
    size = min(batch_size, len(ids))
    batches = images.batch(size).prefetch(1).as_numpy_iterator()
    found: dict[str, npt.NDArray[np.float32]] = {}
    with records.damage_named(shards, index):
        for batch in track(batches, total=-(-len(ids) // size), what=what):
            pictures = batch["image"]
            # The last batch is filled up, since Keras traces the model anew for every other shape.
            filled = np.concatenate([pictures, np.zeros((size - len(pictures), *pictures.shape[1:]), np.uint8)])
            rows = model.predict_on_batch(filled)[: len(pictures)]
            found.update(zip((name.decode() for name in batch["id"]), rows, strict=True))
    return found
