from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.backbones import torch_checkpoint
from pipeline.errors import ModelError

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Storage:
    def __init__(self, kind: type, key: str, values: np.ndarray) -> None:
        self.kind, self.key, self.values = kind, key, values


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Storage):
            return ("storage", obj.kind, obj.key, "cpu", obj.values.size, None)
        return None


class Tensor:
    def __init__(self, rebuild: Any, *arguments: Any) -> None:
        self.rebuild, self.arguments = rebuild, arguments

    def __reduce__(self) -> Any:
        return self.rebuild, (*self.arguments, False, OrderedDict())


class Call:
    """Unpickles to the result of calling `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """As much of PyTorch as pickling by name needs."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_: Any) -> None:
        raise NotImplementedError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


def write(path: Path, tensors: Any, storages: list[Storage], *, magic: int = MAGIC) -> Path:
    stream = io.BytesIO()
    for header in (magic, 1001, SYSTEM):
        pickle.dump(header, stream, protocol=2)
    Pickler(stream, protocol=2).dump(tensors)
    pickle.dump([storage.key for storage in storages], stream, protocol=2)
    for storage in storages:
        stream.write(struct.pack("<q", storage.values.size) + storage.values.tobytes())
    path.write_bytes(stream.getvalue())
    return path


def test_tensors_come_back_with_shape_strides_offset_and_type(tmp_path: Path, torch: Any) -> None:
    floats = Storage(torch.FloatStorage, "1", np.arange(8, dtype="<f4"))
    longs = Storage(torch.LongStorage, "2", np.array([41, 42], "<i8"))
    rebuild = torch._utils._rebuild_tensor_v2
    tensors = OrderedDict(
        plain=Tensor(rebuild, floats, 2, (2, 3), (3, 1)),
        transposed=Tensor(rebuild, floats, 0, (3, 2), (1, 3)),
        scalar=Tensor(rebuild, longs, 1, (), ()),
    )

    loaded = torch_checkpoint.load(write(tmp_path / "w.pth", tensors, [floats, longs]))

    assert list(loaded) == ["plain", "transposed", "scalar"]
    np.testing.assert_array_equal(loaded["plain"], np.array([[2, 3, 4], [5, 6, 7]], np.float32), strict=True)
    np.testing.assert_array_equal(loaded["transposed"], np.array([[0, 3], [1, 4], [2, 5]], np.float32), strict=True)
    np.testing.assert_array_equal(loaded["scalar"], np.array(42, np.int64), strict=True)


@pytest.mark.parametrize("position", ["tensors", "header"])
def test_a_checkpoint_that_calls_a_function_is_refused_before_the_call(tmp_path: Path, position: str) -> None:
    trace = tmp_path / "called"
    attack = Call(os.mkdir, str(trace))
    path = tmp_path / "evil.pth"
    if position == "tensors":
        write(path, OrderedDict(weight=attack), [])
    else:
        path.write_bytes(pickle.dumps(attack, protocol=2))

    with pytest.raises(ModelError, match=r"evil.pth is no PyTorch checkpoint that is safe to read.*posix.mkdir"):
        torch_checkpoint.load(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("shape", "strides", "problem"),
    [
        ((3, 3), (3, 1), "beyond its storage"),
        ((2, 2), (1, -1), "malformed"),
        ((2, 2), (1,), "differ in length"),
    ],
    ids=["reads past the end", "negative stride", "stride missing"],
)
def test_a_tensor_may_not_leave_its_storage(
    tmp_path: Path, torch: Any, shape: tuple[int, ...], strides: tuple[int, ...], problem: str
) -> None:
    storage = Storage(torch.FloatStorage, "1", np.zeros(8, "<f4"))
    tensors = OrderedDict(weight=Tensor(torch._utils._rebuild_tensor_v2, storage, 0, shape, strides))

    with pytest.raises(ModelError, match=problem):
        torch_checkpoint.load(write(tmp_path / "w.pth", tensors, [storage]))


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, torch: Any) -> None:
    storage = Storage(torch.FloatStorage, "1", np.zeros(8, "<f4"))
    tensors = OrderedDict(weight=Tensor(torch._utils._rebuild_tensor_v2, storage, 0, (8,), (1,)))
    path = write(tmp_path / "w.pth", tensors, [storage])
    whole = path.read_bytes()

    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            torch_checkpoint.load(path)


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04 a zip", b"", pickle.dumps(3), b"\x80\x02]q\x00."],
    ids=["zip", "empty", "number", "list"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(content)

    with pytest.raises(ModelError, match=r"other\.pth"):
        torch_checkpoint.load(path)


def test_another_magic_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="header"):
        torch_checkpoint.load(write(tmp_path / "w.pth", OrderedDict(), [], magic=7))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.pth"):
        torch_checkpoint.load(tmp_path / "nowhere.pth")
