from __future__ import annotations

import logging
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from pipeline.training import precision


@pytest.mark.parametrize(
    ("accelerators", "expected"),
    [
        ([("Tesla P100", (6, 0))], "float32"),
        ([("Tesla V100", (7, 0))], "mixed_float16"),
        ([("Tesla T4", (7, 5))], "mixed_float16"),
        ([("A100", (8, 0))], "mixed_bfloat16"),
        ([("L4", (8, 9))], "mixed_bfloat16"),
        ([("H100", (9, 0))], "mixed_bfloat16"),
        ([("RTX 5090", (12, 0))], "mixed_bfloat16"),
        ([("A100", (8, 0)), ("Tesla T4", (7, 5))], "mixed_float16"),
        ([("TPU v4", None)], "mixed_bfloat16"),
        ([("not NVIDIA's", (0, 0))], "float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else " and ".join(name for name, _ in value) or "none",
)
def test_what_accelerators_gain_by(accelerators: list[tuple[str, tuple[int, int] | None]], expected: str) -> None:
    assert precision.choose(accelerators)[0] == expected


@pytest.mark.parametrize("setting", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_policy_by_name_is_taken_at_its_word(setting: str) -> None:
    assert precision.policy(setting, "inception_v3") == setting


def test_a_cpu_computes_in_float32_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pipeline.training.precision"):
        assert precision.policy("auto", "mobilenet_v2") == "float32"

    assert caplog.messages == ["precision float32: there is no GPU"]


@pytest.mark.parametrize(
    ("backbone", "matrix_unit", "expected"),
    [
        ("inception_v3", True, "mixed_bfloat16"),
        ("resnet50", True, "mixed_bfloat16"),
        ("mobilenet_v2", True, "float32"),
        ("inception_v3", False, "float32"),
    ],
)
def test_a_matrix_unit_serves_networks_of_dense_convolutions(backbone: str, matrix_unit: bool, expected: str) -> None:
    assert precision.choose_on_cpu(backbone, matrix_unit=matrix_unit)[0] == expected


def test_flags_of_a_cpu_are_whole_words(tmp_path: Path) -> None:
    description = tmp_path / "cpuinfo"
    description.write_text("processor\t: 0\nflags\t\t: fpu amx_bf16x avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n")

    assert precision.cpu_flags(description) == {"fpu", "amx_bf16x", "avx2"}
    assert precision.cpu_flags(tmp_path / "none") == set()


def build(policy: str) -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        images = keras.Input((16, 16, 3), dtype="uint8")
        x = layers.Conv2D(8, 3, strides=2)(layers.Rescaling(1 / 255)(images))
        x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
        return keras.Model(images, layers.Dense(3, dtype="float32")(x))
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_what_is_trained_in_half_precision_answers_alike_in_float32(policy: str) -> None:
    random = np.random.default_rng(0)
    images, classes = random.integers(0, 256, (24, 16, 16, 3), np.uint8), np.arange(24) % 3
    trained, exact = build(policy), build("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.AdamW(0.01), loss, jit_compile="auto")
    before = trained.get_weights()

    losses = trained.fit(images, classes, batch_size=8, epochs=3, verbose=0).history["loss"]
    exact.set_weights(trained.get_weights())

    assert np.isfinite(losses).all()
    assert any(not np.array_equal(old, new) for old, new in zip(before, trained.get_weights(), strict=True))
    assert {str(weight.dtype) for weight in trained.weights} == {"float32"}
    half, full = np.array(trained(images)), np.array(exact(images))
    assert 0 < np.abs(half - full).max() < 0.03 * np.abs(full).max()
