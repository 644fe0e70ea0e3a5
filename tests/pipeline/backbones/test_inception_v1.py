"""Checkpoints are written as TF-Slim and TF-Hub lay them out; the reference is built of TensorFlow's own operations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from pipeline.backbones import registry, tf_checkpoint, weights
from pipeline.errors import ModelError

ENTRY = registry.get("inception_v1")
SIZE = 48
Tensors = dict[str, np.ndarray]
# As in TF-Slim's inception_v1_base: name, filters of the branches.
MIXED = [
    ("3b", 64, 96, 128, 16, 32, 32),
    ("3c", 128, 128, 192, 32, 96, 64),
    ("4b", 192, 96, 208, 16, 48, 64),
    ("4c", 160, 112, 224, 24, 64, 64),
    ("4d", 128, 128, 256, 24, 64, 64),
    ("4e", 112, 144, 288, 32, 64, 64),
    ("4f", 256, 160, 320, 32, 128, 128),
    ("5b", 256, 160, 320, 32, 128, 128),
    ("5c", 384, 192, 384, 48, 128, 128),
]


class Reference:
    """The forward pass by `tf.nn`, that makes each variable when it first meets it."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(3)
        self.tensors: Tensors = {}

    def _tensor(self, name: str, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        if name not in self.tensors:
            self.tensors[name] = self.random.uniform(low, high, shape).astype(np.float32)
        return self.tensors[name]

    def conv(self, x: tf.Tensor, filters: int, size: int, name: str, stride: int = 1) -> tf.Tensor:
        name = f"InceptionV1/{name}"
        limit = (6 / (size * size * int(x.shape[-1]))) ** 0.5
        x = tf.nn.conv2d(
            x, self._tensor(f"{name}/weights", (size, size, x.shape[-1], filters), -limit, limit), stride, "SAME"
        )
        beta = self._tensor(f"{name}/BatchNorm/beta", (filters,), -0.3, 0.3)
        mean = self._tensor(f"{name}/BatchNorm/moving_mean", (filters,), -0.1, 0.1)
        variance = self._tensor(f"{name}/BatchNorm/moving_variance", (filters,), 0.5, 1.5)
        return tf.nn.relu(tf.nn.batch_normalization(x, mean, variance, beta, None, 0.001))

    def mixed(self, x: tf.Tensor, one: int, *others: int, name: str) -> tf.Tensor:
        three_in, three, five_in, five, pooled = others
        last = "Conv2d_0a_3x3" if name == "Mixed_5b" else "Conv2d_0b_3x3"
        branches = [
            self.conv(x, one, 1, f"{name}/Branch_0/Conv2d_0a_1x1"),
            self.conv(
                self.conv(x, three_in, 1, f"{name}/Branch_1/Conv2d_0a_1x1"), three, 3, f"{name}/Branch_1/Conv2d_0b_3x3"
            ),
            self.conv(self.conv(x, five_in, 1, f"{name}/Branch_2/Conv2d_0a_1x1"), five, 3, f"{name}/Branch_2/{last}"),
            self.conv(tf.nn.max_pool2d(x, 3, 1, "SAME"), pooled, 1, f"{name}/Branch_3/Conv2d_0b_1x1"),
        ]
        return tf.concat(branches, 3)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = self.conv(tf.constant(x), 64, 7, "Conv2d_1a_7x7", 2)
        y = self.conv(tf.nn.max_pool2d(y, 3, 2, "SAME"), 64, 1, "Conv2d_2b_1x1")
        y = tf.nn.max_pool2d(self.conv(y, 192, 3, "Conv2d_2c_3x3"), 3, 2, "SAME")
        for name, *filters in MIXED:
            if name in {"4b", "5b"}:
                y = tf.nn.max_pool2d(y, {"4b": 3, "5b": 2}[name], 2, "SAME")
            y = self.mixed(y, *filters, name=f"Mixed_{name}")
        return y.numpy()


IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def reference() -> Reference:
    made = Reference()
    made(IMAGES)
    return made


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return ENTRY.build(SIZE, pretrained=False)


EXTRAS: Tensors = {
    "InceptionV1/Logits/Conv2d_0c_1x1/weights": np.zeros((1, 1, 1024, 1001), np.float32),
    "InceptionV1/Logits/Conv2d_0c_1x1/biases": np.zeros(1001, np.float32),
    "InceptionV1/Conv2d_1a_7x7/weights/ExponentialMovingAverage": np.ones((7, 7, 3, 64), np.float32),
    "InceptionV1/Conv2d_1a_7x7/weights/RMSProp": np.ones((7, 7, 3, 64), np.float32),
    "InceptionV1/Conv2d_1a_7x7/weights/RMSProp_1": np.ones((7, 7, 3, 64), np.float32),
    "global_step": np.array(7, np.int64),
}


def save_v2(tensors: Tensors, prefix: Path) -> Path:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=list(tensors.values())
    )
    return prefix


def save_v1(tensors: Tensors, prefix: Path) -> Path:
    """One file, as `inception_v1.ckpt` of 2016."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = {
            name: tf.compat.v1.get_variable(f"v{number}", initializer=value)
            for number, (name, value) in enumerate(tensors.items())
        }
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(made, write_version=tf.compat.v1.train.SaverDef.V1)
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)
    return prefix


def save_hub(tensors: Tensors, folder: Path) -> Path:
    """A TF1 module: the checkpoint below variables/."""
    save_v2({f"module/{name}": value for name, value in tensors.items()}, folder / "variables/variables")
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    return folder


def save_tf2(tensors: Tensors, folder: Path) -> Path:
    module = tf.Module()
    module.variables_ = [tf.Variable(value, name=name) for name, value in tensors.items()]
    tf.saved_model.save(module, str(folder))
    return folder


def save_tf2_nameless(tensors: Tensors, folder: Path) -> Path:
    """Where the checkpoint's own graph has no names, `saved_model.pb` has them."""
    reader = tf.train.load_checkpoint(str(save_tf2(tensors, folder) / "variables/variables"))
    stored = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    graph = TrackableObjectGraph.FromString(stored["_CHECKPOINTABLE_OBJECT_GRAPH"])
    for node in graph.nodes:
        for attribute in node.attributes:
            attribute.full_name = ""
    stored["_CHECKPOINTABLE_OBJECT_GRAPH"] = np.array(graph.SerializeToString(), object)
    save_v2(stored, folder / "variables/variables")
    return folder


LAYOUTS: dict[str, Callable[[Tensors, Path], Path]] = {
    "slim V2": save_v2,
    "slim V1": save_v1,
    "hub TF1": save_hub,
    "hub TF2": save_tf2,
    "hub TF2, names in the graph": save_tf2_nameless,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_reference(layout: str, reference: Reference, model: keras.Model, tmp_path: Path) -> None:
    path = LAYOUTS[layout](reference.tensors | EXTRAS, tmp_path / "inception_v1.ckpt")
    model.set_weights([np.ones(w.shape, np.float32) for w in model.get_weights()])

    weights.load(model, ENTRY, str(path))

    expected = reference(IMAGES)
    assert expected.std() > 0.1
    np.testing.assert_allclose(model(IMAGES), expected, atol=1e-4 * expected.max())
    assert expected.shape == (2, 2, 2, 1024)


NAME = "InceptionV1/Mixed_5b/Branch_2/Conv2d_0a_3x3/weights"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({NAME: None}, rf"expected 228 variables of inception_v1, 1 are missing: {NAME}"),
        ({NAME: np.zeros((3, 3, 32, 127), np.float32)}, r"expected the shape \(3, 3, 32, 128\) of .*0a_3x3/weights"),
        ({"InceptionV1/Mixed_6a/weights": np.zeros(3, np.float32)}, r"got also InceptionV1/Mixed_6a/weights"),
        (
            {"module/InceptionV1/Conv2d_1a_7x7/weights": np.zeros((7, 7, 3, 64), np.float32)},
            "Conv2d_1a_7x7/weights is in it twice",
        ),
    ],
    ids=["missing", "shape", "surplus", "twice"],
)
def test_what_does_not_fit_is_named_and_nothing_is_assigned(
    change: dict[str, np.ndarray | None], problem: str, reference: Reference, model: keras.Model, tmp_path: Path
) -> None:
    tensors = {name: value for name, value in (reference.tensors | change).items() if value is not None}
    path = save_v2(tensors, tmp_path / "model.ckpt-1")
    before = model.get_weights()

    with pytest.raises(ModelError, match=problem):
        tf_checkpoint.load(model, ENTRY.variables(model), path)

    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"], ids=["prefix", "index", "data"])
def test_a_checkpoint_may_be_named_by_any_of_its_files_or_its_folder(
    suffix: str, reference: Reference, tmp_path: Path
) -> None:
    prefix = save_v2(reference.tensors, tmp_path / "a/model.ckpt-7")

    assert tf_checkpoint.is_checkpoint(Path(f"{prefix}{suffix}"))
    assert tf_checkpoint.is_checkpoint(prefix.parent)
    assert weights.identify(ENTRY, f"{prefix}{suffix}").startswith("file:")
    assert weights.identify(ENTRY, str(prefix)) == weights.identify(ENTRY, str(prefix.parent))


def test_a_damaged_checkpoint_is_an_error(reference: Reference, model: keras.Model, tmp_path: Path) -> None:
    prefix = save_v2(reference.tensors, tmp_path / "model.ckpt")
    Path(f"{prefix}.index").write_bytes(b"not an index" * 10)

    with pytest.raises(ModelError, match=r"model.ckpt is no readable checkpoint"):
        tf_checkpoint.load(model, ENTRY.variables(model), prefix)


def test_a_network_that_reads_no_checkpoints_says_so(reference: Reference, tmp_path: Path) -> None:
    prefix = save_v2(reference.tensors, tmp_path / "model.ckpt")

    with pytest.raises(ModelError, match=r"TensorFlow checkpoint, and mobilenet_v2 reads none"):
        registry.build(registry.get("mobilenet_v2"), weights=str(prefix), size=32)


def test_imagenet_weights_are_not_promised() -> None:
    with pytest.raises(ModelError, match=r"inception_v1\.ckpt"):
        registry.build(ENTRY, weights="imagenet", size=32)
