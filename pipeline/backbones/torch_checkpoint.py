"""Reads the tensors of a PyTorch checkpoint in the layout before 1.6, without PyTorch and without running it.

A checkpoint is a pickle, and a pickle can call anything that it can name. The reader here can name five things:
`OrderedDict`, the tensor constructor (which only records its arguments) and three kinds of storage.

Layout: three pickles (magic number, protocol version, byte order), the pickled mapping name -> tensor, the
pickled list of storage keys, then for each key an int64 number of elements and the elements, little-endian.
"""

from __future__ import annotations

import pickle  # noqa: TID251 - this is the module that keeps it from running code
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    elements: int


@dataclass(frozen=True)
class _Tensor:
    """A strided view of a storage. Offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or any(type(number) is not int or number < 0 for number in numbers):
        raise pickle.UnpicklingError("a tensor with a malformed storage, offset, shape or stride")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): _StorageType("<f4"),
    ("torch", "DoubleStorage"): _StorageType("<f8"),
    ("torch", "LongStorage"): _StorageType("<i8"),
}


# What the unpickler raises on bytes that are no pickle or that call a tag as if it were a function.
_MALFORMED = (pickle.UnpicklingError, EOFError, struct.error, TypeError, ValueError, AttributeError, LookupError)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no weights file needs") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), str(), int(elements), None) if elements >= 0:
                return _Storage(key, dtype, elements)
        raise pickle.UnpicklingError(f"an unknown kind of storage: {pid!r:.80}")


def load(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a checkpoint by name, in the checkpoint's own shapes and number types.

    Raises `ModelError` when the file is of another layout, is cut short, or names anything but tensors.
    """
    try:
        with path.open("rb") as stream:
            return _read(stream, path.stat().st_size)
    except FileNotFoundError:
        raise ModelError(f"Expected a weights file at {path}, found none.", fix="check the path") from None
    except _MALFORMED as error:
        raise ModelError(
            f"{path.name} is no PyTorch checkpoint that is safe to read: {error}.",
            fix="get the file again from its publisher",
        ) from error


def _read(stream: BinaryIO, size: int) -> dict[str, NDArray[Any]]:
    magic, protocol, system = (_Unpickler(stream).load() for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL or system.get("little_endian") is not True:
        raise ValueError("the header is another one")
    tensors = _Unpickler(stream).load()
    keys = _Unpickler(stream).load()
    specs = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, _Tensor)}
    declared = {tensor.storage.key: tensor.storage for tensor in specs.values()}
    storages = {key: _read_storage(stream, declared[key], size) for key in keys}
    return {name: _view(tensor, storages[tensor.storage.key]) for name, tensor in specs.items()}


def _read_storage(stream: BinaryIO, storage: _Storage, size: int) -> NDArray[Any]:
    (elements,) = struct.unpack("<q", stream.read(8))
    wanted = elements * np.dtype(storage.dtype).itemsize
    if elements != storage.elements or wanted > size - stream.tell():
        raise ValueError(f"storage {storage.key} should hold {storage.elements} elements")
    return np.frombuffer(stream.read(wanted), dtype=storage.dtype)


def _view(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    if len(tensor.shape) != len(tensor.strides):
        raise ValueError("shape and strides differ in length")
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 in tensor.shape or last >= storage.size:
        raise ValueError("a tensor reaches beyond its storage")
    strides = tuple(stride * storage.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False).copy()
