"""Variables by name from what TensorFlow saved: a checkpoint (V1 or V2), or the one inside of a SavedModel.

Only tensors are read. A SavedModel's graph is never loaded, let alone run. Where a checkpoint calls its tensors by
their place in an object graph (`variables/12/.ATTRIBUTES/VARIABLE_VALUE`), the graph says what they are called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError

if TYPE_CHECKING:
    import keras

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_PROTO_LIMIT = 256 * 2**20
# In checkpoints besides the network: the classifier, averages, optimizers' slots and counters.
_EXTRAS = re.compile(
    r"(.*/)?((Aux)?Logits/.*|global_step|save_counter|.*/(ExponentialMovingAverage|RMSProp(_1)?|Momentum|Adam(_1)?"
    r"|Adagrad|Adadelta(_1)?)|beta[12]_power|learning_rate)"
)
_PART = r"(\.(index|data-\d{5}-of-\d{5}))?"
_PREFIXES = ("module/",)  # of TF-Hub


def is_checkpoint(path: Path) -> bool:
    """Whether `path` names a checkpoint (its prefix, a file of it or its folder) or a SavedModel's folder."""
    try:
        return _prefix(path) is not None
    except OSError:
        return False


def parts(path: Path) -> list[Path]:
    """The files that hold the tensors at `path`, in order."""
    prefix = _prefix(path)
    if prefix is None:
        return []
    found = [part for part in prefix.parent.glob("*") if re.fullmatch(rf"{re.escape(prefix.name)}{_PART}", part.name)]
    return sorted(found)


def load(model: keras.Model, variables: Mapping[str, Any], path: Path) -> None:
    """Assign the tensors at `path` to `variables` (name -> variable of `model`).

    Raises `ModelError` unless each is found in its shape and nothing else is there but what is known to be no part
    of the network.
    """
    import tensorflow as tf

    prefix = _prefix(path)
    if prefix is None:
        raise ModelError(f"Expected a TensorFlow checkpoint at {path}, found none.", fix="check the path")
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
        names = _names(reader, shapes, path)
        _check(names, {name: tuple(shapes[key]) for name, key in names.items()}, variables, model.name, path)
        for name, variable in variables.items():
            variable.assign(reader.get_tensor(names[name]))
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        detail = " ".join(str(error).split())
        raise ModelError(f"{path} is no readable checkpoint: {detail:.300}", fix="get it again") from None


def _prefix(path: Path) -> Path | None:
    for candidate in (path, path / "variables/variables"):
        plain = candidate.parent / re.sub(f"{_PART}$", "", candidate.name)
        if (plain.parent / f"{plain.name}.index").is_file():
            return plain
    if path.is_dir():
        found = sorted(path.glob("*.index")) or sorted(path.glob("*.ckpt"))
        return found[0].with_suffix("" if found[0].suffix == ".index" else ".ckpt") if len(found) == 1 else None
    return path if path.is_file() and path.suffix == ".ckpt" else None  # V1: one file


def _names(reader: Any, keys: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Name of a variable, without a prefix, to its key in the checkpoint."""
    called = _object_names(reader, path) if _GRAPH in keys else {}
    found: dict[str, str] = {}
    for key in keys:
        if key == _GRAPH:
            continue
        name = called.get(key) or key.removesuffix(_VALUE)
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if name in found:
            raise ValueError(f"{name} is in it twice, as {found[name]} and {key}")
        found[name] = key
    return found


def _object_names(reader: Any, path: Path) -> dict[str, str]:
    """Key in the checkpoint to the name that the variable had, from the graph in it or in `saved_model.pb`."""
    from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH))
    stored = path / "saved_model.pb"
    nodes: Any = []
    if stored.is_file() and stored.stat().st_size <= _PROTO_LIMIT:
        nodes = saved_model_pb2.SavedModel.FromString(stored.read_bytes()).meta_graphs[0].object_graph_def.nodes
    names = {}
    for number, node in enumerate(graph.nodes):
        for attribute in node.attributes:
            name = attribute.full_name
            if not name and number < len(nodes) and nodes[number].WhichOneof("kind") == "variable":
                name = nodes[number].variable.name
            names[attribute.checkpoint_key] = name.removesuffix(":0")
    return names


def _check(
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    variables: Mapping[str, Any],
    network: str,
    path: Path,
) -> None:
    fix = f"give a checkpoint of {network} as TF-Slim or TF-Hub wrote it"
    if missing := sorted(set(variables) - set(names)):
        raise ModelError(
            f"{path}: expected {len(variables)} variables of {network}, {len(missing)} are missing: {_some(missing)}; "
            f"it has {_some(sorted(names))}.",
            fix=fix,
        )
    if wrong := [name for name in sorted(variables) if shapes[name] != tuple(variables[name].shape)]:
        name = wrong[0]
        raise ModelError(
            f"{path}: expected the shape {tuple(variables[name].shape)} of {name}, got {shapes[name]} "
            f"({len(wrong)} differ).",
            fix=fix,
        )
    if surplus := sorted(name for name in set(names) - set(variables) if not _EXTRAS.fullmatch(name)):
        raise ModelError(f"{path}: expected the variables of {network} alone, got also {_some(surplus)}.", fix=fix)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
