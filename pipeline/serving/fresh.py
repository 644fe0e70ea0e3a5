"""`python fresh.py FOLDER`: answer and time images with a SavedModel and TensorFlow alone, as whoever serves it would.

Run by its path, in a process of its own that imports nothing of Refit and cannot import Keras: what it can load and
answer, any server of TensorFlow can. FOLDER holds `job.json` (as `process.Job`) and `images.npy`, uint8 [N, S, S, 3].
It leaves `found.json`, as `process.Found` reads it, and, if asked for answers, `images_answers.npy` and
`encoded_answers.npy`, float32 [N, classes]. It ends when its standard input closes: with the process that started it.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 3  # calls before the clock runs: the first traces the graph and fills caches
SIDE_BY_SIDE = 32  # images answered at once


def main(folder: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.modules["keras"] = None  # type: ignore[assignment]  # from here on, importing it is an error
    import tensorflow as tf

    job = json.loads((folder / "job.json").read_text())
    images = np.load(folder / "images.npy")
    if job["device"] == "cpu":
        tf.config.set_visible_devices([], "GPU")
    begun = time.monotonic()
    model = tf.saved_model.load(job["saved_model"])
    signatures = model.signatures
    by_image, by_file = signatures["serving_default"], signatures["encoded"]
    found: dict[str, Any] = {"load_seconds": time.monotonic() - begun}

    def answer(batch: Any) -> Any:
        return by_image(images=tf.constant(batch))["probabilities"].numpy()

    if job["answers"]:
        np.save(folder / "images_answers.npy", _in_parts(answer, images))
        encoded = [tf.io.encode_png(image).numpy() for image in images]
        read = _in_parts(lambda part: by_file(encoded=tf.constant(part))["probabilities"].numpy(), encoded)
        np.save(folder / "encoded_answers.npy", read)
        found["classes"] = [name.decode() for name in signatures["classes"]()["classes"].numpy()]
        found["floats_refused"] = _refuses(lambda: answer(images[:1].astype(np.float32) / 255))
    found["latency"] = {
        str(size): _latency(answer, images, size, job["calls"], job["seconds"]) for size in job["batches"]
    }
    found["peak_memory_mib"] = _peak_memory_mib()
    (folder / "found.json").write_text(json.dumps(found))


def _in_parts(answer: Callable[[Any], Any], items: Any) -> Any:
    starts = range(0, len(items), SIDE_BY_SIDE)
    return np.concatenate([answer(items[start : start + SIDE_BY_SIDE]) for start in starts])


def _refuses(call: Callable[[], Any]) -> bool:
    try:
        call()
    except Exception:  # TensorFlow has several for it
        return True
    return False


def _latency(answer: Callable[[Any], Any], images: Any, size: int, calls: int, seconds: float) -> dict[str, float]:
    """Of whole calls, from pixels in memory to probabilities in memory: at most `calls` of them, within `seconds`."""
    batch = images[np.arange(size) % len(images)]
    for _ in range(WARM_UP):
        answer(batch)
    times: list[float] = []
    while len(times) < calls and sum(times) < seconds:
        begun = time.perf_counter()
        answer(batch)
        times.append(time.perf_counter() - begun)
    ordered = sorted(times)
    return {
        "p50_ms": 1000 * _quantile(ordered, 0.5),
        "p99_ms": 1000 * _quantile(ordered, 0.99),
        "images_per_second": size * len(times) / sum(times),
        "calls": len(times),
    }


def _quantile(ordered: list[float], share: float) -> float:
    """The smallest value that is not exceeded by `share` of all: one that was measured (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _peak_memory_mib() -> float:
    """Of this process alone. getrusage also counts what the parent held when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock would still be held when this process ends
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
