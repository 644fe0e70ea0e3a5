"""Which of Keras's dtype policies training computes in. Weights are float32 under all of them, so they can be copied
into a model that was built under float32, which is what goes into files."""

from __future__ import annotations

import logging

import keras

logger = logging.getLogger(__name__)

Capability = tuple[int, int]

# Tensor cores take float16 from Volta on (7.0) and bfloat16 from Ampere on (8.0): CUDA C++ Programming Guide, section
# "Compute Capabilities". bfloat16 has float32's range, so no gradient vanishes and the loss needs no scaling.
_FLOAT16: Capability = (7, 0)
_BFLOAT16: Capability = (8, 0)


def policy(setting: str) -> str:
    """`setting`, or for `auto` what every accelerator here gains by: mixed_bfloat16, mixed_float16 or float32.

    All workers of a cluster must come to the same answer; give them a policy by name where their GPUs differ.
    """
    if setting != "auto":
        return setting
    chosen, reason = choose(_jax() if keras.backend.backend() == "jax" else _tensorflow())
    logger.info("precision %s: %s", chosen, reason)
    return chosen


def choose(accelerators: list[tuple[str, Capability | None]]) -> tuple[str, str]:
    """The policy and the reason, for accelerators by name and compute capability (None: a TPU)."""
    if not accelerators:
        return "float32", "there is no GPU"
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
