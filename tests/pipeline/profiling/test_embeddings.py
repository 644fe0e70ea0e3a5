from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import files
from pipeline.dataset import manifest, store
from pipeline.errors import DataError
from pipeline.profiling import embeddings

Png = Callable[..., bytes]


class Network:
    """Takes an image's first bytes for its embedding, and remembers what it was given."""

    seen: list[str]

    def embed(
        self, keys: Sequence[str], read: Callable[[str], bytes], processes: int, *, what: str
    ) -> tuple[np.ndarray, np.ndarray]:
        type(self).seen += keys
        vectors = [np.resize(np.frombuffer(read(key)[-40:], np.uint8), embeddings.SIZE) for key in keys]
        return np.array(vectors, "<f2"), np.arange(len(keys), dtype=np.float32)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Image ids that went through the network."""
    monkeypatch.setattr(Network, "seen", [], raising=False)
    monkeypatch.setattr(embeddings, "Network", Network)
    return Network.seen


def rows(batch: str, contents: list[bytes], *, removed: bool = False, first: int = 0) -> pa.Table:
    row = {"source_version": "1", "label": "cat", "batch": batch, "ingested_at": datetime.now(UTC), "removed": removed}
    return pa.Table.from_pylist(
        [
            row | {"image_id": store.put(data), "uri": f"{number}.png", "bytes": len(data), "notes": []}
            for number, data in enumerate(contents, start=first)
        ],
        schema=manifest.SCHEMA,
    )


def held(folder: Path) -> list[str]:
    return [image_id for table in manifest.read_batches(folder).values() for image_id in table["image_id"].to_pylist()]


def test_each_current_image_is_embedded_once(tmp_path: Path, png: Png, seen: list[str]) -> None:
    first = rows("0001", [png(1), png(2)])
    both = {"0001": first, "0002": rows("0002", [png(2), png(3)], first=2)}

    assert embeddings.update(tmp_path, {"0001": first}, limit=10, processes=1) == 2
    before = (tmp_path / "0001.parquet").stat()
    assert embeddings.update(tmp_path, both, limit=10, processes=1) == 3
    assert embeddings.update(tmp_path, both, limit=10, processes=1) == 3

    assert sorted(seen) == sorted(hashlib.sha256(png(seed)).hexdigest() for seed in (1, 2, 3))
    after = (tmp_path / "0001.parquet").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert pq.read_schema(tmp_path / "0002.parquet").equals(embeddings.SCHEMA)


def test_read_gives_what_was_embedded_in_the_order_asked_for(tmp_path: Path, png: Png, seen: list[str]) -> None:
    contents = [png(1), png(2)]
    embeddings.update(tmp_path, {"0001": rows("0001", contents)}, limit=10, processes=1)
    ids = [hashlib.sha256(data).hexdigest() for data in contents]

    embedded = embeddings.read(tmp_path, [ids[1], "unknown", ids[0]])

    assert embedded.image_ids == (ids[1], ids[0])
    assert embedded.vectors.dtype == np.float32
    assert [bytes(vector[:40].astype(np.uint8)) for vector in embedded.vectors] == [
        contents[1][-40:],
        contents[0][-40:],
    ]
    assert embedded.max_logits.tolist() == [1, 0]


def test_with_more_images_than_the_limit_those_with_the_smallest_ids_are_kept(
    tmp_path: Path, png: Png, seen: list[str]
) -> None:
    first = rows("0001", [png(seed) for seed in range(6)])
    both = {"0001": first, "0002": rows("0002", [png(seed) for seed in range(6, 20)], first=6)}
    smallest = sorted(first["image_id"].to_pylist() + both["0002"]["image_id"].to_pylist())[:5]

    assert embeddings.update(tmp_path, {"0001": first}, limit=5, processes=1) == 5
    assert embeddings.update(tmp_path, both, limit=5, processes=1) == 5

    assert sorted(held(tmp_path)) == smallest
    assert len(seen) == len(set(seen))
    fresh = tmp_path / "at once"
    embeddings.update(fresh, both, limit=5, processes=1)
    assert sorted(held(fresh)) == smallest


def test_images_and_batches_that_are_gone_are_not_kept(tmp_path: Path, png: Png, seen: list[str]) -> None:
    first, second = rows("0001", [png(1), png(2)]), rows("0002", [png(3)], first=2)
    embeddings.update(tmp_path, {"0001": first, "0002": second}, limit=10, processes=1)
    tombstone = rows("0003", [png(1)], removed=True)

    assert embeddings.update(tmp_path, {"0001": first, "0003": tombstone}, limit=10, processes=1) == 1

    assert held(tmp_path) == [hashlib.sha256(png(2)).hexdigest()]
    assert len(seen) == 3


def test_another_version_is_embedded_anew(tmp_path: Path, png: Png, seen: list[str]) -> None:
    first = {"0001": rows("0001", [png(1)])}
    embeddings.update(tmp_path, first, limit=10, processes=1)
    table = pq.read_table(tmp_path / "0001.parquet")
    files.write_table(tmp_path / "0001.parquet", table.replace_schema_metadata({"refit.embeddings_version": "0"}))

    assert embeddings.update(tmp_path, first, limit=10, processes=1) == 1
    assert len(seen) == 2


def test_with_limit_0_nothing_is_embedded(tmp_path: Path, png: Png, seen: list[str]) -> None:
    assert embeddings.update(tmp_path, {"0001": rows("0001", [png(1)])}, limit=0, processes=1) == 0
    assert len(embeddings.read(tmp_path, ["any"])) == len(seen) == 0


def test_without_the_weights_it_says_so_and_goes_on(
    tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from pipeline.backbones import efficientnet_lite

    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no-such-package")

    assert embeddings.update(tmp_path, {"0001": rows("0001", [png(1)])}, limit=10, processes=1) is None
    assert "no-such-package" in caplog.text
    assert held(tmp_path) == []


@pytest.fixture(scope="module")
def network() -> embeddings.Network:
    return embeddings.Network()


def test_an_embedding_does_not_depend_on_what_it_is_embedded_with(network: embeddings.Network, png: Png) -> None:
    import keras
    import tensorflow as tf

    from pipeline.backbones import registry
    from pipeline.backbones.scaling import InputScaling

    contents = {number: png(number, width=300 + number, height=240) for number in range(embeddings.BATCH + 1)}
    vectors, logits = network.embed(list(contents), contents.__getitem__, 2, what="test")

    assert vectors.shape == (len(contents), embeddings.SIZE)
    assert vectors.dtype == np.float16
    assert logits.dtype == np.float32
    alone, logit = network.embed([3], contents.__getitem__, 1, what="test")
    assert (bytes(alone[0]), logit[0]) == (bytes(vectors[3]), logits[3])

    entry = registry.get("efficientnet_lite0")
    pixels = tf.image.resize(tf.io.decode_png(contents[3], channels=3), (224, 224), antialias=True)[None]
    features = registry.build(entry, weights="imagenet", size=224)(InputScaling(entry.scaling)(pixels))
    expected = keras.ops.convert_to_numpy(features).mean(axis=(1, 2))[0]
    ours = vectors[3].astype(np.float32)
    assert ours @ expected / np.linalg.norm(ours) / np.linalg.norm(expected) > 0.995


def test_an_image_that_cannot_be_decoded_is_named(network: embeddings.Network) -> None:
    with pytest.raises(DataError, match="the-key is not"):
        network.embed(["the-key"], lambda key: b"no image", 1, what="test")
