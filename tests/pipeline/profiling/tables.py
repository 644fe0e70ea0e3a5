"""Feature tables made from seeds: what a test needs when it needs distributions but no images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.profiling import features


def table(rows: int, seed: int = 0, *, batch: str = "0001", **columns: Any) -> pa.Table:
    """`rows` feature rows around ordinary photographs; `columns` replaces whole columns (a value or a list)."""
    random = np.random.default_rng(seed)
    light = random.normal(0, 1, rows)  # common to all colour features, which are correlated in images too
    data: dict[str, Any] = {
        "image_id": [f"{batch}-{seed}-{number}" for number in range(rows)],
        "batch": batch,
        "label": ["cat" if number % 2 else "dog" for number in range(rows)],
        "format": "JPEG",
        "mode": "RGB",
        "width": random.integers(300, 600, rows),
        "height": random.integers(300, 600, rows),
        "bytes": random.integers(20_000, 90_000, rows),
        "dhash": random.integers(-(2**63), 2**63, rows),
        "thumbnail": bytes(256),
        "sharpness": random.gamma(2, 0.01, rows),
        "entropy": random.normal(7, 0.2, rows).clip(0, 8),
        "colourfulness": random.gamma(4, 0.04, rows).clip(0, 2),
    }
    for name in features.NUMERIC:
        if name not in data and name != "aspect_ratio":
            data[name] = (0.4 + 0.05 * light + random.normal(0, 0.03, rows)).clip(0, 0.5)
    data["aspect_ratio"] = data["width"] / data["height"]
    data |= columns
    full = {name: value if np.ndim(value) else [value] * rows for name, value in data.items()}
    return pa.table({name: pa.array(full[name], features.SCHEMA.field(name).type) for name in features.SCHEMA.names})
