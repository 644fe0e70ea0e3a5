"""Shards are read by tools that know nothing of Refit, as docs/formats.md describes them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline import runtime
from pipeline.dataset import shards, store
from pipeline.dataset.shards import Layout, Row

PIXELS = [np.random.default_rng(number).integers(0, 256, (10, 12 + number, 3), np.uint8) for number in range(6)]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Two shards of six PNGs; image n has the class n % 2."""
    rows = []
    for number, pixels in enumerate(PIXELS):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        image_id = store.put(buffer.getvalue())
        rows.append(Row(image_id, number % 2, "ab"[number % 2], f"group {number}", "train", (), 500))
    layout = Layout(target_bytes=10**6, files=2, max_side=None, quality=90, compression="none")
    index = shards.write(tmp_path / "shards", {"0001": rows}, ["a", "b"], layout, threads=1)
    return [str(tmp_path / "shards" / entry.path) for entry in index.files]


def number_of(group: bytes | str) -> int:
    return int((group if isinstance(group, str) else group.decode()).removeprefix("group "))


def test_tensorflow_by_the_documented_specification(paths: list[str]) -> None:
    specification = {
        **dict.fromkeys(
            ("image/encoded", "image/format", "image/class/text", "image/id", "image/group"),
            tf.io.FixedLenFeature([], tf.string),
        ),
        **dict.fromkeys(
            ("image/height", "image/width", "image/class/label", "image/augmented"), tf.io.FixedLenFeature([], tf.int64)
        ),
    }

    [batch] = tf.data.TFRecordDataset(paths).batch(6).map(lambda x: tf.io.parse_example(x, specification))

    for row in range(6):
        number = number_of(batch["image/group"][row].numpy())
        np.testing.assert_array_equal(tf.io.decode_image(batch["image/encoded"][row]), PIXELS[number])
        assert (batch["image/height"][row], batch["image/width"][row]) == PIXELS[number].shape[:2]
        assert batch["image/class/label"][row] == number % 2
        assert batch["image/format"][row] == b"png"


def test_tensorflow_datasets(paths: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_datasets as tfds

        features = tfds.features.FeaturesDict(
            {
                "image": {
                    "encoded": tfds.features.Image(shape=(None, None, 3)),
                    "class": {"label": tfds.features.ClassLabel(names=["a", "b"]), "text": tfds.features.Text()},
                    "group": tfds.features.Text(),
                }
            }
        )
        found = list(tf.data.TFRecordDataset(paths).map(features.deserialize_example).as_numpy_iterator())

    assert len(found) == 6
    for element in found:
        number = number_of(element["image"]["group"])
        np.testing.assert_array_equal(element["image"]["encoded"], PIXELS[number])
        assert element["image"]["class"] == {"label": number % 2, "text": b"ab"[number % 2 :][:1]}


def test_tfx(paths: list[str]) -> None:
    with runtime.quiet_imports():
        from tfx_bsl.coders import example_coder

    serialized = [record.numpy() for record in tf.data.TFRecordDataset(paths)]
    table = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(serialized).to_pydict()

    assert sorted(number_of(group) for [group] in table["image/group"]) == list(range(6))
    for [group], [label], [width] in zip(
        table["image/group"], table["image/class/label"], table["image/width"], strict=True
    ):
        assert (label, width) == (number_of(group) % 2, 12 + number_of(group))


READER = """
import json, sys, hashlib
from tfrecord.reader import tfrecord_loader
kinds = {"image/encoded": "byte", "image/id": "byte", "image/class/label": "int"}
for path in sys.argv[1:]:
    for element in tfrecord_loader(path, None, kinds):
        digest = hashlib.sha256(bytes(element["image/encoded"])).hexdigest()
        print(json.dumps([digest, bytes(element["image/id"]).decode(), int(element["image/class/label"][0])]))
assert "tensorflow" not in sys.modules
"""


def test_a_reader_without_tensorflow(paths: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", READER, *paths], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 6
    assert all(digest == image_id for digest, image_id, _ in found)  # the bytes are those that were ingested
    assert sorted(label for *_, label in found) == [0, 0, 0, 1, 1, 1]
