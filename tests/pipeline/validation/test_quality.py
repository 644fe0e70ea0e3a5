from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

from pipeline.dataset.reduced import reduced
from pipeline.profiling import features
from pipeline.validation import quality

DATA = Path(__file__).parents[4] / "shared/data"


def measured(images: list[Image.Image], labels: list[str] | None = None) -> pa.Table:
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        encoded.append(reduced(buffer.getvalue(), features.MEASURED_SIDE))
    return features.measure(encoded).append_column("label", pa.array(labels or ["any"] * len(images)))


def scene(seed: int, *, light: float = 1.0) -> Image.Image:
    """Noise with the spectrum of natural images, whose amplitude falls as 1 / frequency (Field 1987)."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(200), np.fft.fftfreq(200)))
    waves = np.fft.fft2(random.normal(size=(200, 200))) / np.maximum(frequency, 1 / 200)
    pixels = np.fft.ifft2(waves).real
    pixels = 110 + 45 * (pixels - pixels.mean()) / pixels.std()
    return Image.fromarray((light * pixels).clip(0, 255).astype(np.uint8)).convert("RGB")


SCENES = [scene(seed) for seed in range(30)]


def flagged(images: list[Image.Image], labels: list[str] | None = None) -> dict[str, list[int]]:
    found = quality.defects(measured(images, labels))
    return {check: np.flatnonzero(flags).tolist() for check, flags in found.items() if flags.any()}


@pytest.mark.parametrize(
    ("planted", "checks"),
    [
        pytest.param(Image.new("RGB", (200, 200)), {"blank_image", "dark_image"}, id="black"),
        pytest.param(Image.new("RGB", (200, 200), "white"), {"blank_image", "bright_image"}, id="white"),
        pytest.param(Image.new("RGB", (200, 200), (90, 120, 60)), {"blank_image"}, id="one-colour"),
        pytest.param(scene(99, light=0.1), {"dark_image"}, id="nearly-black"),
        pytest.param(SCENES[9].point(lambda value: 225 + value // 8), {"bright_image"}, id="nearly-white"),
        pytest.param(scene(99).filter(ImageFilter.GaussianBlur(4)), {"blurred_image"}, id="blurred"),
        pytest.param(scene(99).filter(ImageFilter.GaussianBlur(8)), {"blurred_image"}, id="more-blurred"),
        pytest.param(scene(99, light=0.3), set(), id="dim"),
        pytest.param(SCENES[9].point(lambda value: 110 + value // 8), set(), id="faint-but-sharp"),
    ],
)
def test_a_planted_defect_is_found_and_nothing_else(planted: Image.Image, checks: set[str]) -> None:
    assert flagged([*SCENES, planted]) == {check: [30] for check in checks}


def test_what_is_usual_is_no_defect() -> None:
    night = [scene(seed, light=0.1) for seed in range(100, 130)]
    mist = [scene(seed).filter(ImageFilter.GaussianBlur(5)) for seed in range(200, 230)]

    assert flagged(night) == {}
    assert flagged(mist) == {}
    assert flagged([*SCENES, *night[:12]], ["day"] * 30 + ["night"] * 12) == {}
    assert flagged([*SCENES, *mist[:12]], ["day"] * 30 + ["mist"] * 12) == {}


def test_few_images_are_no_distribution_to_be_blurred_in() -> None:
    assert flagged([*SCENES[:8], scene(99).filter(ImageFilter.GaussianBlur(5))]) == {}


@pytest.mark.parametrize("name", ["imagenet_sample", "magnetic_tile", "sign_digits"])
def test_no_defect_is_invented_in_real_images(name: str) -> None:
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"needs the images of {folder}")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()][::4]
    copies = [reduced(path.read_bytes(), features.MEASURED_SIDE) for path in paths]
    labels = pa.array([path.parent.name for path in paths])

    found = quality.defects(features.measure(copies).append_column("label", labels))

    assert {check: int(flags.sum()) for check, flags in found.items()} == dict.fromkeys(found, 0)
