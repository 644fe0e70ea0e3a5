"""Which of Keras's dtype policies training computes in. Weights are float32 under all of them, so they can be copied
into a model that was built under float32, which is what goes into files."""

from __future__ import annotations

import logging
from pathlib import Path

import keras

logger = logging.getLogger(__name__)

Capability = tuple[int, int]

# Tensor cores take float16 from Volta on (7.0) and bfloat16 from Ampere on (8.0): CUDA C++ Programming Guide, section
# "Compute Capabilities". bfloat16 has float32's range, so no gradient vanishes and the loss needs no scaling.
_FLOAT16: Capability = (7, 0)
_BFLOAT16: Capability = (8, 0)
# Matrix units of CPUs (Intel AMX) multiply bfloat16. By them InceptionV3 answers 2.1 and learns 1.5 times as fast,
# ResNet50 1.2 times; DenseNet121 neither gains nor loses, and depthwise convolutions, which have no such kernels, make
# MobileNetV2 and EfficientNet-Lite0 1.1 to 1.4 times slower (TensorFlow 2.16, batches of 32 at 224 pixels).
_MATRIX_UNIT = "amx_bf16"
_GAIN_ON_CPU = ("inception", "resnet")
_CPU_INFO = Path("/proc/cpuinfo")


def policy(setting: str, backbone: str) -> str:
    """`setting`, or for `auto` what all devices here gain by: mixed_bfloat16, mixed_float16 or float32.

    All workers of a cluster must come to the same answer; give them a policy by name where their devices differ.
    """
    if setting != "auto":
        return setting
    jax = keras.backend.backend() == "jax"
    accelerators = _jax() if jax else _tensorflow()
    matrix_unit = not jax and _MATRIX_UNIT in cpu_flags(_CPU_INFO)
    chosen, reason = choose(accelerators) if accelerators else choose_on_cpu(backbone, matrix_unit=matrix_unit)
    logger.info("precision %s: %s", chosen, reason)
    return chosen


def choose_on_cpu(backbone: str, *, matrix_unit: bool) -> tuple[str, str]:
    """The policy and the reason, without an accelerator. `matrix_unit`: the CPU multiplies bfloat16 in one."""
    if matrix_unit and backbone.startswith(_GAIN_ON_CPU):
        return "mixed_bfloat16", f"the CPU has {_MATRIX_UNIT}, by which {backbone} gains"
    return "float32", "there is no GPU"


def cpu_flags(description: Path) -> set[str]:
    """What the CPU can do, as Linux tells it in /proc/cpuinfo; empty on other systems and other kinds of CPU."""
    if not description.exists():
        return set()
    lines = description.read_text().splitlines()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def choose(accelerators: list[tuple[str, Capability | None]]) -> tuple[str, str]:
    """The policy and the reason, for accelerators by name and compute capability (None: a TPU), one at least."""
    name, least = min(accelerators, key=lambda found: found[1] or _BFLOAT16)
    if least is None:
        return "mixed_bfloat16", f"{name} is made for it"
    reason = f"{name} has compute capability {least[0]}.{least[1]}"
    if least >= _BFLOAT16:
        return "mixed_bfloat16", reason
    if least >= _FLOAT16:
        return "mixed_float16", reason
    return "float32", reason


def _tensorflow() -> list[tuple[str, Capability | None]]:
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    # A GPU that is not NVIDIA's has no compute capability.
    return [(found.get("device_name", "GPU"), found.get("compute_capability", (0, 0))) for found in details]


def _jax() -> list[tuple[str, Capability | None]]:
    import jax

    found: list[tuple[str, Capability | None]] = []
    for device in jax.local_devices():
        if device.platform == "tpu":
            found.append((device.device_kind, None))
        elif device.platform != "cpu":
            major, _, minor = str(getattr(device, "compute_capability", "0.0")).partition(".")
            found.append((device.device_kind, (int(major), int(minor or 0))))
    return found
