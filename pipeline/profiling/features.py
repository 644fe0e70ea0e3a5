"""What is measured of an image: the feature row of docs/formats.md, from one decode.

Size, format and mode are those of the original. Everything else is measured on the copy that `dataset.reduced`
makes, whose longest side is at most `MEASURED_SIDE` pixels (smaller images are taken as they are), for two
reasons: the scores of a photograph and of its thumbnail become comparable, as they are to a network that sees both
at 224 pixels, and a photograph costs hardly more than its decoding.

Units: colour values and luma are 0-1 (luma is ITU-R 601, as in Pillow's mode L), sizes are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipeline.dataset.reduced import Reduced

VERSION = 2  # of the definitions below; raising it makes every batch be measured again
MEASURED_SIDE = 256  # pixels; the usual photograph of 500 is halved, which libjpeg does in vector code
EDGE_SLOPE = 0.1  # luma per pixel (Sobel); a step of 0.2 from one pixel to the next counts as an edge
ALL_ROWS = 128  # a copy of more rows is searched for edges in every second one: off by 1 %, in half the time
THUMBNAIL_SIDE = 16  # pixels
# Pixels of a larger copy that colour is measured on. It halves the cost of a small image's colours and moves a
# photograph's means and deviations by 0.001 (median; 0.01 at most), where photographs differ by 0.06 to 0.15.
COLOUR_SAMPLE = 2048

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

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_LEVELS = np.arange(256.0)
# Red against green and yellow against blue, from red, green and blue (Hasler and Süsstrunk 2003).
_RED_GREEN = np.array([1.0, -1.0, 0.0])
_YELLOW_BLUE = np.array([0.5, 0.5, -1.0])


def measure(images: Sequence[Reduced]) -> pa.Table:
    """All features of N images: N rows of `SCHEMA` without the identity columns, which are the caller's."""
    return pa.table(columns(images), pa.schema([field for field in SCHEMA if field.name not in IDENTITY]))


def columns(images: Sequence[Reduced]) -> dict[str, Sequence[object] | npt.NDArray[np.generic]]:
    """`measure` without Arrow, whose first array costs a worker process a quarter of a second: it imports pandas.

    One step for all images, then the next, and the arithmetic on their sums for all at once: a thumbnail's pixels are
    worth no more than a hundred microseconds, of which cold code and further calls of NumPy would take as much again.
    """
    lumas = [copy.image().convert("L") for copy in images]
    counts = np.array([luma.histogram() for luma in lumas], np.float64)
    # Not with `@`: from this size on, BLAS would start threads, which keep spinning beside the other processes.
    total, squares = (counts * _LEVELS).sum(axis=1), (counts * _LEVELS**2).sum(axis=1)
    sums = counts.sum(axis=1), total, squares
    brightness, contrast = _moments(*sums)
    slopes = np.array([_slopes(np.asarray(luma)) for luma in lumas])
    small = [_small(luma) for luma in lumas]
    colours = [
        _colour_sums(copy.pixels) if copy.pixels.ndim == 3 else _grey_sums(*grey)
        for copy, *grey in zip(images, *sums, strict=True)
    ]
    return {
        "format": [copy.format for copy in images],
        "mode": [copy.mode for copy in images],
        "width": [copy.width for copy in images],
        "height": [copy.height for copy in images],
        "aspect_ratio": [copy.width / copy.height for copy in images],
        "bytes": [copy.bytes for copy in images],
        **_colour(*(np.array(sums) for sums in zip(*colours, strict=True))),
        "brightness": brightness,
        "contrast": contrast,
        "sharpness": slopes[:, 0],
        "entropy": _entropy(counts),
        "edge_density": slopes[:, 1],
        "dhash": dhash(small),
        "thumbnail": [_resized(luma, THUMBNAIL_SIDE, THUMBNAIL_SIDE).tobytes() for luma in small],
    }


def _moments(count: Floats, total: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation, as 0-1, of 8-bit values from their number, sum and sum of squares.

    Exact but for the last rounding: the sums of integers below 2**53 are, in float64.
    """
    return total / count / 255, np.sqrt(count * squares - total**2) / count / 255


def _colour_sums(pixels: Bytes) -> tuple[float, npt.ArrayLike, npt.ArrayLike, float]:
    """Of colour, [H, W, 4]: how many pixels were taken, the sums of the channels [3] and of their products [3, 3],
    and the mean saturation.
    """
    channels = _channels(pixels)
    values = channels.astype(np.float64)
    return channels.shape[1], values.sum(axis=1), values @ values.T, _saturation(*channels)


def _grey_sums(count: float, total: float, squares: float) -> tuple[float, npt.ArrayLike, npt.ArrayLike, float]:
    """`_colour_sums` of three channels that are alike."""
    return count, [total] * 3, [[squares] * 3] * 3, 0.0


def _colour(count: Floats, total: Floats, products: Floats, saturation: Floats) -> dict[str, Floats]:
    """All that is said of colour, from the sums [N], [N, 3], [N, 3, 3] and the saturation [N].

    Colourfulness: Hasler and Süsstrunk, Measuring colourfulness in natural images, 2003 (their M3, on 0-255, is 255
    times it).
    """

    def along(axis: Floats) -> tuple[Floats, Floats]:
        return _moments(count, total @ axis, np.einsum("i,nij,j->n", axis, products, axis))

    means, deviations = zip(*map(along, np.eye(3)), strict=True)
    (red_green, red_green_std), (yellow_blue, yellow_blue_std) = along(_RED_GREEN), along(_YELLOW_BLUE)
    spread, offset = np.hypot(red_green_std, yellow_blue_std), np.hypot(red_green, yellow_blue)
    return {
        **dict(zip(("mean_r", "mean_g", "mean_b"), means, strict=True)),
        **dict(zip(("std_r", "std_g", "std_b"), deviations, strict=True)),
        "saturation": saturation,
        "colourfulness": spread + 0.3 * offset,
    }


def _channels(pixels: Bytes) -> Bytes:
    """Red, green and blue of all pixels of a small image, else of `COLOUR_SAMPLE` spread evenly: [3, P]."""
    whole = pixels.view("<u4").ravel()  # four bytes at once: NumPy picks rows of single bytes ten times as slowly
    if len(whole) > COLOUR_SAMPLE:
        # Not every n-th: n might divide the width, and then the same columns would be seen in every row, and no others.
        whole = whole[np.arange(COLOUR_SAMPLE) * len(whole) // COLOUR_SAMPLE]
    return np.ascontiguousarray(whole.view(np.uint8).reshape(-1, 4).T[:3])


def _saturation(red: Bytes, green: Bytes, blue: Bytes) -> float:
    """Mean of HSV's saturation, (max - min) / max over the channels; black has none."""
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return float(np.mean((highest - lowest) / np.maximum(highest, 1).astype(np.float32), dtype=np.float64))


def _slopes(luma: Bytes) -> tuple[float, float]:
    """Sharpness and edge density of luma, uint8 [H, W]; 0 where no pixel has eight neighbours.

    Sharpness is the variance of the 4-neighbour Laplacian, edge density the share of the inner pixels whose Sobel
    slope is at least `EDGE_SLOPE`; both of the pixels of every second row where there are more than `ALL_ROWS`.
    """
    height, width = luma.shape
    if min(height, width) < 3:
        return 0.0, 0.0
    step = 1 if height <= ALL_ROWS else 2
    # Flat, a pixel's neighbours lie at fixed distances: NumPy's loops run over the whole image instead of a row,
    # twice as fast. What they make of the first and the last column is taken out again below.
    above, here, below = (luma[row : height - 2 + row : step].astype(np.int16).ravel() for row in range(3))
    beside, change = above + below, below - above
    laplacian = beside[1:-1] + here[:-2] + here[2:] - 4 * here[1:-1]
    smooth = beside + here + here
    across = smooth[2:] - smooth[:-2]
    down = change[:-2] + change[1:-1] + change[1:-1] + change[2:]
    for column in (width - 2, width - 1):
        laplacian[column::width] = across[column::width] = down[column::width] = 0
    count = len(here) // width * (width - 2)
    second, x, y = laplacian.astype(np.float64), across.astype(np.float32), down.astype(np.float32)
    variance = (count * np.square(second).sum() - second.sum() ** 2) / (255 * count) ** 2
    # Sobel's weights sum to 8 times the slope per pixel.
    return float(variance), np.count_nonzero(x * x + y * y >= (8 * 255 * EDGE_SLOPE) ** 2) / count


def _entropy(histograms: Floats) -> Floats:
    """Shannon entropy of the 256-bin histograms [N, 256], in bits."""
    shares = histograms / histograms.sum(axis=1, keepdims=True)
    return np.abs(-(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1))  # abs: one grey is 0, not -0


def _small(luma: Image.Image) -> Image.Image:
    """Averaged to a multiple of the thumbnail's size: the same to the eye, for half the cost of resizing at once."""
    width, height = (max(1, side // (2 * THUMBNAIL_SIDE)) for side in luma.size)
    return luma.reduce((width, height))


def _resized(luma: Image.Image, width: int, height: int) -> Image.Image:
    return luma.resize((width, height), Image.Resampling.BILINEAR)


def dhash(lumas: Sequence[Image.Image]) -> npt.NDArray[np.int64]:
    """Difference hashes: 64 bits, row by row, of "brighter than the left neighbour" at 9 x 8; as signed integers.

    Krawetz, Kind of like that, 2013.
    """
    small = np.frombuffer(b"".join(_resized(luma, 9, 8).tobytes() for luma in lumas), np.uint8).reshape(-1, 8, 9)
    bits = np.packbits(small[:, :, 1:] > small[:, :, :-1], axis=2)
    return bits.reshape(-1, 8).view(">i8").ravel().astype(np.int64)
