from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dataset import tfrecord

FEATURES = st.dictionaries(st.text(max_size=20), st.binary(max_size=300) | st.integers(-(2**63), 2**63 - 1), max_size=6)


def by_tensorflow(features: dict[str, bytes | int]) -> bytes:
    def feature(value: bytes | int) -> tf.train.Feature:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    of_each = {name: feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=of_each)).SerializeToString(deterministic=True)


@given(FEATURES)
def test_an_example_reads_as_it_was_given(features: dict[str, bytes | int]) -> None:
    data = b"".join(tfrecord.record(features))[12:-4]

    found = tf.train.Example.FromString(data).features.feature
    assert {name: (value.bytes_list.value or value.int64_list.value)[0] for name, value in found.items()} == features


def test_records_are_those_of_tensorflows_own_writer(tmp_path: Path) -> None:
    examples: list[dict[str, bytes | int]] = [
        {},
        {"image/encoded": b"x" * 70_000, "image/height": 300, "a": b""},
        {"negative": -1, "zero": 0, "many": 2**63 - 1},
    ]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for features in examples:
            writer.write(by_tensorflow(features))

    ours = b"".join(piece for features in examples for piece in tfrecord.record(features))

    assert ours == (tmp_path / "theirs").read_bytes()


def test_a_checksum_goes_on_where_another_ended() -> None:
    assert tfrecord.checksum([b"123456789"]) == 0xE3069283  # the check value of CRC-32C, RFC 3720
    assert tfrecord.checksum([b"6789"], tfrecord.checksum([b"123", b"", b"45"])) == 0xE3069283
