"""TFRecord files of `tf.train.Example`, written without TensorFlow: importing it takes longer than writing a gigabyte.

A file is a sequence of records: length (uint64), masked CRC-32C of the length (uint32), data, masked CRC-32C of the
data, all little-endian (tensorflow/core/lib/io/record_writer.h). So files joined end to end are a file again, and so
are gzip streams of files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import google_crc32c

# The numbers of the fields in tensorflow/core/example/{example,feature}.proto.
_FEATURES = _MAP_ENTRY = _MAP_KEY = _VALUE = 1
_MAP_VALUE = 2
_BYTES_LIST, _INT64_LIST = 1, 3
_64_BITS = (1 << 64) - 1


def record(features: Mapping[str, bytes | int]) -> list[bytes]:
    """One record that holds an Example with these features, each a list of one value, sorted by name.

    Its data are those of TensorFlow's `SerializeToString(deterministic=True)`. Integers must fit 64 bits.

    Returns the pieces of the record, to be written one after the other: the bytes of an image are never copied.
    """
    parts = [part for name in sorted(features) for part in _entry(name.encode(), features[name])]
    parts.insert(0, _header(_FEATURES, sum(map(len, parts))))
    length = struct.pack("<Q", sum(map(len, parts)))
    return [length + _masked(google_crc32c.value(length)), *parts, _masked(checksum(parts))]


def checksum(parts: Iterable[bytes], start: int = 0) -> int:
    """CRC-32C of the bytes that `parts` make when joined, behind others whose checksum is `start`."""
    for part in parts:
        start = google_crc32c.extend(start, part)
    return start


def _masked(crc: int) -> bytes:
    """tensorflow/core/lib/hash/crc32c.h: a CRC stored beside data that it covers would weaken an outer CRC."""
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _entry(name: bytes, value: bytes | int) -> tuple[bytes, bytes]:
    """What stands before a value in the map of features, and the value."""
    kind, content = (_BYTES_LIST, value) if isinstance(value, bytes) else (_INT64_LIST, _varint(value & _64_BITS))
    header = b""
    for field in (_VALUE, kind, _MAP_VALUE):
        header = _header(field, len(header) + len(content)) + header
    header = _header(_MAP_KEY, len(name)) + name + header
    return _header(_MAP_ENTRY, len(header) + len(content)) + header, content


def _header(field: int, size: int) -> bytes:
    """Of a length-delimited field (wire type 2, protobuf.dev/programming-guides/encoding)."""
    return bytes((field << 3 | 2,)) + _varint(size)


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
