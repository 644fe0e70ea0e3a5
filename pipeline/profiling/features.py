"""What is measured of one image: the feature row of docs/formats.md, from one decode.

Size, format and mode are those of the original. Everything else is measured on a copy whose longest side is
at most `MEASURED_SIDE` pixels (bilinear with antialiasing; smaller images are never enlarged), for two reasons:
the scores of a photograph and of its thumbnail become comparable, as they are to a network that sees both at
224 pixels, and a 9-megapixel photograph costs no more than its decoding.

Units: colour values and luma are 0-1 (luma is ITU-R 601, as in Pillow's mode L), sizes are pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipeline.dataset.images import Decoded

VERSION = 1  # of the definitions below; raising it makes every batch be measured again
MEASURED_SIDE = 256  # pixels
EDGE_SLOPE = 0.1  # luma per pixel (Sobel); a step of 0.2 from one pixel to the next counts as an edge
THUMBNAIL_SIDE = 16  # pixels

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("batch", pa.string()),
        ("label", pa.string()),
        ("format", pa.string()),
        ("mode", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("aspect_ratio", pa.float64()),
        ("bytes", pa.int64()),
        ("mean_r", pa.float64()),
        ("mean_g", pa.float64()),
        ("mean_b", pa.float64()),
        ("std_r", pa.float64()),
        ("std_g", pa.float64()),
        ("std_b", pa.float64()),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("saturation", pa.float64()),
        ("colourfulness", pa.float64()),
        ("sharpness", pa.float64()),
        ("entropy", pa.float64()),
        ("edge_density", pa.float64()),
        ("dhash", pa.int64()),
        ("thumbnail", pa.binary(THUMBNAIL_SIDE**2)),
    ]
)
IDENTITY = ("image_id", "batch", "label")  # come from the manifest, the rest from the image
NUMERIC = tuple(
    field.name for field in SCHEMA if field.name != "dhash" and field.type in (pa.int64(), pa.float64())
)  # the features that have a distribution

Row = dict[str, str | int | float | bytes]


def measure(decoded: Decoded, size: int) -> Row:
    """All features of one image of `size` bytes; the identity columns are the caller's."""
    width, height = decoded.image.size
    image = _reduced(decoded.image)
    luma_image = image if image.mode == "L" else image.convert("L")
    luma = np.asarray(luma_image)
    brightness, contrast = _moments(luma)
    return {
        "format": decoded.format,
        "mode": decoded.mode,
        "width": width,
        "height": height,
        "aspect_ratio": width / height,
        "bytes": size,
        **_colour(image),
        "brightness": brightness,
        "contrast": contrast,
        "sharpness": _sharpness(luma),
        "entropy": _entropy(luma),
        "edge_density": _edge_density(luma),
        "dhash": dhash(luma_image),
        "thumbnail": luma_image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR).tobytes(),
    }


def _reduced(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    if longest <= MEASURED_SIDE:
        return image
    width, height = (max(1, round(side * MEASURED_SIDE / longest)) for side in image.size)
    # The gap lets Pillow average whole blocks first: the same picture to the eye, five times as fast at 9 MP.
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


def _moments(channel: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and standard deviation of 8-bit values as 0-1, exact: from the histogram."""
    shares = np.bincount(channel.ravel(), minlength=256) / channel.size
    values = np.arange(256) / 255
    mean = float(shares @ values)
    return mean, float(np.sqrt(shares @ (values - mean) ** 2))


def _colour(image: Image.Image) -> dict[str, float]:
    if image.mode == "L":
        moments = [_moments(np.asarray(image))] * 3
        saturation, colourfulness = 0.0, 0.0
    else:
        planes = [np.asarray(plane) for plane in image.split()]
        moments = [_moments(plane) for plane in planes]
        saturation, colourfulness = _saturation(*planes), _colourfulness(*planes)
    named = {f"mean_{name}": mean for name, (mean, _) in zip("rgb", moments, strict=True)}
    named |= {f"std_{name}": std for name, (_, std) in zip("rgb", moments, strict=True)}
    return named | {"saturation": saturation, "colourfulness": colourfulness}


def _saturation(red: npt.NDArray[np.uint8], green: npt.NDArray[np.uint8], blue: npt.NDArray[np.uint8]) -> float:
    """Mean of HSV's saturation, (max - min) / max over the channels; black has none."""
    # Four times as fast as Pillow's conversion to HSV, and not rounded to 8 bit.
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    return float(np.mean((highest - lowest) / np.maximum(highest, 1).astype(np.float32), dtype=np.float64))


def _colourfulness(red: npt.NDArray[np.uint8], green: npt.NDArray[np.uint8], blue: npt.NDArray[np.uint8]) -> float:
    """Hasler and Süsstrunk, Measuring colourfulness in natural images, 2003 (their M3, on 0-255, is 255 times it)."""
    r, g, b = (plane.astype(np.int16) for plane in (red, green, blue))
    red_green = (r - g).astype(np.float32) / 255
    yellow_blue = (r + g - 2 * b).astype(np.float32) / 510
    spread = np.hypot(red_green.std(dtype=np.float64), yellow_blue.std(dtype=np.float64))
    offset = np.hypot(red_green.mean(dtype=np.float64), yellow_blue.mean(dtype=np.float64))
    return float(spread + 0.3 * offset)


def _sharpness(luma: npt.NDArray[np.uint8]) -> float:
    """Variance of the 4-neighbour Laplacian; 0 where no pixel has four neighbours."""
    if min(luma.shape) < 3:
        return 0.0
    v = luma.astype(np.int16)
    laplacian = v[:-2, 1:-1] + v[2:, 1:-1] + v[1:-1, :-2] + v[1:-1, 2:] - 4 * v[1:-1, 1:-1]
    return float((laplacian.astype(np.float32) / 255).var(dtype=np.float64))


def _edge_density(luma: npt.NDArray[np.uint8]) -> float:
    """Share of the inner pixels whose Sobel slope is at least `EDGE_SLOPE`."""
    if min(luma.shape) < 3:
        return 0.0
    v = luma.astype(np.int32)
    down = v[:-2] + 2 * v[1:-1] + v[2:]
    right = v[:, :-2] + 2 * v[:, 1:-1] + v[:, 2:]
    horizontal, vertical = down[:, 2:] - down[:, :-2], right[2:] - right[:-2]
    # Sobel's weights sum to 8 times the slope per pixel.
    return float(np.mean(horizontal**2 + vertical**2 >= (8 * 255 * EDGE_SLOPE) ** 2))


def _entropy(luma: npt.NDArray[np.uint8]) -> float:
    """Shannon entropy of the 256-bin histogram, in bits."""
    counts = np.bincount(luma.ravel(), minlength=256)
    shares = counts[counts > 0] / luma.size
    return float(np.abs(-(shares @ np.log2(shares))))  # abs: one single grey is 0, not -0


def dhash(luma: Image.Image) -> int:
    """Difference hash: 64 bits, row by row, of "brighter than the left neighbour" at 9 x 8; as a signed integer.

    Krawetz, Kind of like that, 2013.
    """
    small = np.asarray(luma.resize((9, 8), Image.Resampling.BILINEAR))
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return int.from_bytes(bits.tobytes(), "big", signed=True)
