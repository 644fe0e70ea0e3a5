"""What many tests need: small real image files, and a REFIT_HOME of their own."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

# A machine that is busy for a moment makes no test wrong.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> None:
    """Keep what is alive by now, mostly libraries, out of later garbage collections: towards the end of the suite each
    full one would take seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def refit_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test ever sees the developer's own runs and models."""
    home = tmp_path / "refit-home"
    monkeypatch.setenv("REFIT_HOME", str(home))
    return home


@pytest.fixture
def png() -> Callable[..., bytes]:
    """png(seed, width, height): the bytes of a PNG of seeded noise."""

    def make(seed: int, width: int = 12, height: int = 10) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    return make


@pytest.fixture
def source(tmp_path: Path, png: Callable[..., bytes]) -> Path:
    """Two classes of six images."""
    root = tmp_path / "source"
    for number, label in enumerate(("cat", "dog")):
        (root / label).mkdir(parents=True)
        for image in range(6):
            (root / label / f"{label}-{image}.png").write_bytes(png(100 * number + image))
    return root
