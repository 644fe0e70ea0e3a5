"""A tiny model in a registry, as promotion leaves it, and pictures of all the kinds that files come in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from pipeline import runs
from pipeline.settings import code_root, read_params, with_overrides
from pipeline.training import forms
from tests.pipeline.training import tiny


def publish(folder: Path, *overrides: str, wanted: tuple[str, ...] = ("saved_model",)) -> Path:
    """Make `tiny.trained` the live version of `classifier` in $REFIT_HOME; returns the version's folder."""
    model = tiny.trained().whole
    folder.mkdir()
    forms.write(model, folder, wanted, tiny.pictures(4)[0])
    params = with_overrides(read_params(code_root() / "params.yaml"), overrides)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    saved_model = folder / "saved_model"
    content = {path.name: path for path in [*folder.iterdir(), *saved_model.iterdir()] if path != saved_model}
    registry = runs.registry("classifier")
    version = registry.publish(content)
    registry.move_live(version, expected_generation=registry.live().generation, reason="test")
    return registry.fetch(version)


def kinds() -> dict[str, bytes]:
    """File name to bytes: one picture, its halves unlike, as files that decoders read differently."""
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 60, (40, 24, 3), np.uint8)
    pixels[:20, :, 0] += 190
    pixels[20:, :, 2] += 120
    image = Image.fromarray(pixels)
    grey = np.linspace(0, 65535, 40 * 24).reshape(40, 24).astype(np.uint16)
    alpha = Image.fromarray(np.dstack([pixels, np.full((40, 24), 90, np.uint8)]))
    turned = image.getexif()
    turned[0x0112] = 6
    return {
        "plain.jpg": _bytes(image, "JPEG"),
        "plain.png": _bytes(image, "PNG"),
        "turned.jpg": _bytes(image, "JPEG", exif=turned),
        "turned.png": _bytes(image, "PNG", exif=turned),
        "cmyk.jpg": _bytes(image.convert("CMYK"), "JPEG"),
        "deep.png": _bytes(Image.fromarray(grey), "PNG"),
        "alpha.png": _bytes(alpha, "PNG"),
        "palette.gif": _bytes(image.quantize(16), "GIF"),
        "photo.webp": _bytes(image, "WEBP", lossless=True),
        "scan.tiff": _bytes(image, "TIFF"),
        "grey.bmp": _bytes(image.convert("L"), "BMP"),
    }


def _bytes(image: Image.Image, encoding: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, encoding, **options)  # type: ignore[arg-type]
    return buffer.getvalue()
