"""How fast whole networks are fine-tuned with JAX: a plain Keras loop beside Refit's, in float32 and bfloat16.

    python benchmarks/gpu.py RESULTS.json [--budget SECONDS] [--network NAME] [--precision NAME] [--batch N] [--quick]

Prints one table. Every run is a process of its own, and RESULTS.json holds what is done: call it again and it goes on.
Needs JAX, Keras and rich, no TensorFlow and no network. A machine with JAX but without Keras gets wheels, fetched with
`pip download --no-deps` for its Python: keras namex optree h5py absl-py ml-dtypes rich markdown-it-py mdurl pygments.

"plain" is what scripts do: a `keras.applications` network, pixels / 255, Dense on top, everything trained, BatchNorm
with it, Adam, `fit` over uint8 arrays. "refit" is the phase in which everything is unfrozen: scaling within the model,
BatchNorm in inference mode, standardised features, dropout, AdamW with clipped gradients, `fit` over a `PyDataset`.
It leaves out augmentation, whose draws come from TensorFlow. Weights are random: speed does not depend on them.

FLOPs of a step are three times those of the forward pass (backward takes two: one for inputs, one for weights), and
those are XLA's count for it. Peaks are NVIDIA's, dense: that of TensorFloat-32 for float32, as JAX uses it by default.
Peak memory is the allocator's, of a process that allocates as it goes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # on a bare machine nothing is installed

WAYS = ("plain", "refit")
PRECISIONS = ("float32", "mixed_bfloat16")
BATCHES = (128, 32, 256, 64)  # the most telling first, should the time not suffice
NETWORKS = {"resnet50": ("ResNet50", 224, "caffe"), "inception_v3": ("InceptionV3", 299, "tf")}
SMALL = {"mobilenet": ("MobileNet", 32, "tf")}  # XLA compiles the others for minutes on a CPU
CLASSES = 10
STEPS, WARM_UP, ROUNDS = 30, 5, 3
# TFLOP/s of TensorFloat-32 and bfloat16 by what the device calls itself; the first that fits counts. From NVIDIA's data
# sheets, without sparsity.
PEAKS = {
    "H200": (494.7, 989.4),
    "H100 PCIe": (378.0, 756.0),
    "H100 NVL": (417.5, 835.5),
    "H100": (494.7, 989.4),
    "A100": (156.0, 312.0),
    "L40S": (183.0, 362.0),
    "L4": (60.0, 121.0),
    "A10": (62.5, 125.0),
}


def batches(images: Any, classes: Any, batch: int) -> Any:
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(images) // batch

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            rows = slice(index * batch, (index + 1) * batch)
            return images[rows], classes[rows]

    return Batches()


def build(network: str, way: str, size: int) -> Any:
    """A compiled model of uint8 images."""
    import keras
    from keras import layers

    constructor, _, scaling = (NETWORKS | SMALL)[network]
    backbone = getattr(keras.applications, constructor)(weights=None, include_top=False, input_shape=(size, size, 3))
    images = keras.Input((size, size, 3), dtype="uint8")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if way == "plain":
        features = layers.GlobalAveragePooling2D()(backbone(layers.Rescaling(1 / 255)(images)))
        model = keras.Model(images, layers.Dense(CLASSES, dtype="float32")(features))
        model.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
        return model
    from pipeline.backbones.scaling import InputScaling
    from pipeline.training.layers import Standardise

    for layer in backbone.layers:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)
    features = layers.GlobalAveragePooling2D()(backbone(InputScaling(scaling)(images)))
    dropped = layers.Dropout(0.2)(Standardise()(features))
    model = keras.Model(images, layers.Dense(CLASSES, dtype="float32", kernel_initializer="zeros")(dropped))
    model.compile(keras.optimizers.AdamW(1e-4, global_clipnorm=1.0), loss, metrics=["accuracy"], jit_compile="auto")
    return model


def forward_flops(model: Any, batch: int) -> float:
    import jax

    lists = (model.trainable_variables, model.non_trainable_variables)
    trained, fixed = ([variable.value for variable in found] for found in lists)
    images = jax.ShapeDtypeStruct((batch, *model.input.shape[1:]), "uint8")
    forward = jax.jit(lambda *arguments: model.stateless_call(*arguments, training=False)[0])
    counted = forward.lower(trained, fixed, images).cost_analysis()
    return float((counted[0] if isinstance(counted, list) else counted)["flops"])


def measure(network: str, way: str, precision: str, batch: int, size: int, steps: int, rounds: int) -> dict[str, Any]:
    import jax
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    model = build(network, way, size)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch * steps, size, size, 3), np.uint8)
    classes = random.integers(0, CLASSES, len(images))

    def fit(count: int) -> None:
        taken = images[: count * batch], classes[: count * batch]
        if way == "plain":
            model.fit(*taken, batch_size=batch, verbose=0)
        else:
            model.fit(batches(*taken, batch), verbose=0, shuffle=False)

    compiling = timed(lambda: fit(min(WARM_UP, steps)))
    seconds = median(timed(lambda: fit(steps)) for _ in range(rounds)) / steps
    device = jax.local_devices()[0]
    memory = device.memory_stats() or {}
    return {
        "images_per_second": batch / seconds,
        "step_ms": 1000 * seconds,
        "first_steps_seconds": compiling,
        "teraflops": 3 * forward_flops(model, batch) / seconds / 1e12,
        "peak_memory_bytes": memory.get("peak_bytes_in_use"),
        "device": device.device_kind,
        "jax": jax.__version__,
        "keras": keras.__version__,
    }


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()  # `fit` reads its metrics at the end, so the device is done
    return time.perf_counter() - began


def run(case: dict[str, Any], limit: float) -> dict[str, Any]:
    """`measure` in a process of its own, or the error that ended it."""
    environment = os.environ | {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": "out of time"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if "RESOURCE_EXHAUSTED" in done.stderr:
        return {"error": "out of memory"}
    return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}


def peak(device: str, precision: str) -> float | None:
    for name, values in PEAKS.items():
        if name in device:
            return values[PRECISIONS.index(precision)]
    return None


def show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    devices = sorted({found["device"] for found in results if "device" in found})
    table = Table(title=f"fine-tuning on {', '.join(devices) or 'nothing'}")
    for name in ("network", "precision", "batch", "way"):
        table.add_column(name)
    for name in ("images/s", "step, ms", "TFLOP/s", "of peak", "GiB", "compile, s"):
        table.add_column(name, justify="right")
    keys = ("network", "precision", "batch", "way")
    for found in sorted(results, key=lambda result: [result[key] for key in keys]):
        named = [str(found[key]) for key in keys]
        if "error" in found:
            table.add_row(*named, found["error"])
            continue
        highest = peak(found["device"], found["precision"])
        memory = found["peak_memory_bytes"]
        table.add_row(
            *named,
            f"{found['images_per_second']:.0f}",
            f"{found['step_ms']:.1f}",
            f"{found['teraflops']:.2f}",
            "" if highest is None else f"{found['teraflops'] / highest:.1%}",
            "" if memory is None else f"{memory / 2**30:.1f}",
            f"{found['first_steps_seconds']:.0f}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=Path("gpu.json"))
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds; what does not fit is left out")
    parser.add_argument("--network", choices=NETWORKS, action="append")
    parser.add_argument("--precision", choices=PRECISIONS, action="append")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument(
        "--quick", action="store_true", help="a small network and tiny batches, to try the script on a CPU"
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(**json.loads(options.case))))
        return

    end = time.monotonic() + options.budget
    results = json.loads(options.results.read_text()) if options.results.exists() else []
    for batch, network, precision, way in itertools.product(
        options.batch or ((4,) if options.quick else BATCHES),
        SMALL if options.quick else options.network or NETWORKS,
        options.precision or PRECISIONS,
        WAYS,
    ):
        size = (NETWORKS | SMALL)[network][1]
        case = {"network": network, "way": way, "precision": precision, "batch": batch, "size": size}
        case |= {"steps": 2, "rounds": 1} if options.quick else {"steps": STEPS, "rounds": ROUNDS}
        if any(case.items() <= found.items() for found in results):
            continue
        if (left := end - time.monotonic()) < 30:
            break
        results.append(case | run(case, left))
        if results[-1].get("error") == "out of time":
            results.pop()
            break
        options.results.write_text(json.dumps(results, indent=1))
        print(
            *(results[-1].get(key) for key in ("network", "precision", "batch", "way", "step_ms", "error")), flush=True
        )
    show(results)


if __name__ == "__main__":
    main()
