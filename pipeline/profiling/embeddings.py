"""`data/embeddings`: what a network trained on ImageNet sees in an image, computed once for each image.

EfficientNet-Lite0's globally pooled features, float16 [1280], and the largest of the 1000 logits of its own
classifier, float32: how surely it takes the image for something that it knows. At most `limit` images are embedded,
those with the smallest ids. An id is a SHA-256, so they are a random sample, and the same one however the images
arrived.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pipeline import files, runtime
from pipeline.dataset import images, manifest, store
from pipeline.dataset.reduced import reduced
from pipeline.errors import DataError, ModelError
from pipeline.progress import track
from pipeline.settings import refit_home

logger = logging.getLogger(__name__)

VERSION = 1  # of what is computed; raising it makes every image be embedded again
BACKBONE = "efficientnet_lite0"
SIZE = 1280
SIDE = 224  # pixels
SCHEMA = pa.schema([("image_id", pa.string()), ("embedding", pa.binary(2 * SIZE)), ("max_logit", pa.float32())])
# Every batch has this size, the last one is filled up: results then do not depend on what an image is embedded with.
BATCH = 16
# Larger photographs are reduced while they are decoded, to no less than twice what the network sees: a photograph of
# 12 megapixels would take ten times as long to decode as to embed.
_DECODED_SIDE = 4 * SIDE
_VERSION_KEY = b"refit.embeddings_version"

Key = TypeVar("Key")


@dataclass(frozen=True)
class Embedded:
    """N images: `vectors` float32 [N, 1280], `max_logits` float32 [N]."""

    image_ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    max_logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.image_ids)


def update(folder: Path, batches: Mapping[str, pa.Table], *, limit: int, processes: int) -> int | None:
    """Make `folder` hold the embeddings of at most `limit` current images of these manifest batches.

    Returns how many there are; None if images wait to be embedded and the network's weights are not installed.
    Raises `DataError` if the bytes of an image are gone from the store or are damaged there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.clear_temporaries(folder)
    wanted = set(sorted(manifest.current(batches)["image_id"].to_pylist())[:limit])
    count = len(wanted)
    ids = {}
    for name, rows in batches.items():
        ids[name] = [image_id for image_id in dict.fromkeys(rows["image_id"].to_pylist()) if image_id in wanted]
        wanted.difference_update(ids[name])  # an image of several batches is kept in the first of them
    stale = {name: wished for name, wished in ids.items() if not _is_fresh(_file(folder, name), wished)}
    known = _rows(folder) if stale else {}
    missing = {name: [image_id for image_id in wished if image_id not in known] for name, wished in stale.items()}
    network = None
    if any(missing.values()):
        try:
            network = Network()
        except ModelError as error:
            logger.warning("profile: no image is embedded, so labels and domain gap are not checked. %s", error)
            return None
    for name, wished in stale.items():
        if network is not None and missing[name]:
            vectors, logits = network.embed(missing[name], store.get, processes, what=f"Embedding batch {name}")
            known |= dict(zip(missing[name], zip(map(bytes, vectors), logits.tolist(), strict=True), strict=True))
            logger.info("profile: batch %s, %d images embedded", name, len(vectors))
        rows = [(image_id, *known[image_id]) for image_id in wished]
        table = pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=SCHEMA)
        files.write_table(_file(folder, name), table.replace_schema_metadata({_VERSION_KEY: str(VERSION)}))
    for path in folder.glob("*.parquet"):
        if path.stem not in batches:
            path.unlink()
    return count


def read(folder: Path, image_ids: Sequence[str]) -> Embedded:
    """Those of `image_ids` that are embedded, in their order."""
    rows = _rows(folder)
    found = tuple(image_id for image_id in image_ids if image_id in rows)
    vectors = np.frombuffer(b"".join(rows[image_id][0] for image_id in found), "<f2").reshape(-1, SIZE)
    return Embedded(found, vectors.astype(np.float32), np.array([rows[key][1] for key in found], np.float32))


class Network:
    """The backbone with its ImageNet weights, and its classifier. Raises `ModelError` if they are not installed."""

    def __init__(self) -> None:
        # Imported late: TensorFlow takes seconds, and most runs have few new images or none.
        with runtime.quiet_imports():
            import tensorflow as tf
        path = refit_home() / "cache/embedding" / f"{BACKBONE}-{VERSION}-{tf.__version__}.pb"
        if not path.exists():  # building it takes ten times as long as reading it, and Keras
            files.write_bytes(path, _frozen_graph())
        graph = tf.compat.v1.GraphDef.FromString(path.read_bytes())
        imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
        self._call: Callable[..., Any] = imported.prune("batch:0", ["pooled:0", "max_logit:0"])
        self._tensor: Callable[..., Any] = tf.constant

    def embed(
        self, keys: Sequence[Key], read: Callable[[Key], bytes], processes: int, *, what: str
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Embeddings [N, 1280] and largest logits [N] of the images whose bytes `read` gives for `keys`.

        Raises `DataError` for an image that cannot be decoded.
        """
        vectors, logits = [np.empty((0, SIZE), "<f2")], [np.empty(0, np.float32)]
        for batch in track(_batches(keys, read, processes), total=-(-len(keys) // BATCH), what=what):
            filled = np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), axis=0)])
            pooled, max_logit = self._call(self._tensor(filled))
            vectors.append(pooled.numpy()[: len(batch)].astype("<f2"))
            logits.append(max_logit.numpy()[: len(batch)])
        return np.concatenate(vectors), np.concatenate(logits)


def _frozen_graph() -> bytes:
    """A GraphDef: `batch`, uint8 [BATCH, SIDE, SIDE, 3], to `pooled`, [BATCH, SIZE], and `max_logit`, [BATCH]."""
    with runtime.quiet_imports():
        import keras
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        from pipeline.backbones import efficientnet_lite, registry, torch_checkpoint
        from pipeline.backbones.scaling import InputScaling
    entry = registry.get(BACKBONE)
    backbone = registry.build(entry, weights=registry.IMAGENET, size=SIDE)
    tensors = torch_checkpoint.load(efficientnet_lite.weights_file())
    pictures = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    model = keras.Model(
        pictures, keras.layers.GlobalAveragePooling2D()(backbone(InputScaling(entry.scaling)(pictures)))
    )

    def call(batch: Any) -> Any:
        pooled = model(batch, training=False)
        logits = pooled @ tensors["_fc.weight"].T + tensors["_fc.bias"]
        return tf.identity(pooled, name="pooled"), tf.reduce_max(logits, axis=1, name="max_logit")

    traced = tf.function(call).get_concrete_function(tf.TensorSpec((BATCH, SIDE, SIDE, 3), tf.uint8))
    # Only with constant weights does TensorFlow fold BatchNorm into the convolutions: 13.5 ms per image and core
    # instead of 18. XLA takes 270.
    graph: bytes = convert_variables_to_constants_v2(traced).graph.as_graph_def().SerializeToString(deterministic=True)
    return graph


def _batches(keys: Sequence[Key], read: Callable[[Key], bytes], processes: int) -> Iterator[NDArray[np.uint8]]:
    """uint8 [at most BATCH, SIDE, SIDE, 3]."""
    # Threads, as decoders and resizing leave Python's lock. Decoding and inference each use all cores in turn.
    with ThreadPoolExecutor(processes) as pool:
        for start in range(0, len(keys), BATCH):
            yield np.stack(list(pool.map(partial(_picture, read), keys[start : start + BATCH])))


def _picture(read: Callable[[Key], bytes], key: Key) -> NDArray[np.uint8]:
    """uint8 [SIDE, SIDE, 3], bilinear and antialiased: within 1 of TensorFlow's pixels, at half the cost.

    Embeddings then have a cosine of 0.998 with those of the other, at least.
    """
    try:
        image = reduced(read(key), _DECODED_SIDE).image()
    except images.Unreadable as error:
        raise DataError(
            f"Expected a readable image, {key} is not ({error}).",
            fix="restore $REFIT_HOME/images from a backup, or ingest the source again in a new REFIT_HOME",
        ) from None
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("RGB"))


def _file(folder: Path, batch: str) -> Path:
    return folder / f"{batch}.parquet"


def _has_version(path: Path) -> bool:
    return (pq.read_schema(path).metadata or {}).get(_VERSION_KEY) == str(VERSION).encode()


def _is_fresh(path: Path, image_ids: list[str]) -> bool:
    if not path.exists() or not _has_version(path):
        return False
    return pq.read_table(path, columns=["image_id"])["image_id"].to_pylist() == image_ids


def _rows(folder: Path) -> dict[str, tuple[bytes, float]]:
    """Image id to embedding and largest logit, of all files of the present version."""
    found: dict[str, tuple[bytes, float]] = {}
    for path in manifest.batch_files(folder):
        if _has_version(path):
            columns = [column.to_pylist() for column in pq.read_table(path).columns]
            found |= {image_id: (vector, logit) for image_id, vector, logit in zip(*columns, strict=True)}
    return found
