"""Images that show nothing, judged by their features: blank, nearly black, nearly white, blurred.

Each but blank is judged beside the other images, and beside those of the image's own class where it has at least
`OWN_CLASS` of them: radiographs are dark, sketches are bright and skies are smooth without being defects.

Calibrated on 500 ImageNet images, 412 magnetic tiles and 1033 photographs of hands, of which none is flagged, and on
150 of each made worse, five at a time: darkened to a tenth all are found; blurred by a Gaussian of radius 4 px 92 to
100 %, of radius 6 px 97 % or more; washed out to the uppermost tenth all, overexposed five times 55 to 100 %. A blur
that the reduced copy of a large photograph does not show is none to a network either, and is not reported.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

OWN_CLASS = 10  # images; a median of fewer says little
# Standard deviation (0-1) of every channel. JPEG turns one colour into 0 to 0.002.
BLANK_SPREAD = 0.006
# Luma (0-1) of the brightest twentieth of the thumbnail. The least of the natural images has 0.26, the most of those
# darkened to a tenth 0.1.
DARK_LIGHTS = 0.15
# Mean luma, and luma of the thumbnail's darkest twentieth. Largest of the natural images: 0.89 beside 0.65.
BRIGHT_MEAN = 0.9
BRIGHT_SHADOWS = 0.6
UNUSUAL = 0.5  # a dark (bright) image is a defect if it has at most this share of the usual light (shadow)
# Iglewicz and Hoaglin, How to detect and handle outliers, 1993: modified z-scores beyond 3.5 are outliers.
OUTLIER = 3.5
LEAST_SPREAD = 0.7  # of log sharpness; a factor of two is ordinary even where all images are alike

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def defects(table: pa.Table) -> dict[str, Flags]:
    """Check name to bool [rows]: which rows of the feature table `table`, at least one, show that defect."""
    thumbnails = np.frombuffer(b"".join(table["thumbnail"].to_pylist()), np.uint8).reshape(table.num_rows, -1)
    shadows, lights = np.quantile(thumbnails, (0.05, 0.95), axis=1, method="nearest") / 255
    brightness, contrast, sharpness = (table[name].to_numpy() for name in ("brightness", "contrast", "sharpness"))
    spread = np.max([table[name].to_numpy() for name in ("contrast", "std_r", "std_g", "std_b")], axis=0)
    labels = np.unique(np.array(table["label"].to_pylist(), object).astype(str), return_inverse=True)[1]

    blank = spread < BLANK_SPREAD
    dark = (lights < DARK_LIGHTS) & _judged(lights, labels, _far_below)
    bright = (brightness > BRIGHT_MEAN) & (shadows > BRIGHT_SHADOWS) & _judged(1 - brightness, labels, _far_below)
    # Laplacian variance falls with the contrast too, so both it and its ratio to the luma variance must be low: a
    # faint but sharp image fails the second, a soft gradient behind a sharp object neither.
    detail = np.log(sharpness + 1e-6)
    relative = detail - 2 * np.log(contrast + 1e-3)
    shown = ~(blank | dark | bright)
    blurred = np.zeros(table.num_rows, bool)
    blurred[shown] = _judged(detail[shown], labels[shown], _outlying) & _judged(
        relative[shown], labels[shown], _outlying
    )
    return {"blank_image": blank, "dark_image": dark, "bright_image": bright, "blurred_image": blurred}


def _judged(values: Values, labels: npt.NDArray[np.int64], rule: Callable[[Values], Flags]) -> Flags:
    """Where `rule` holds among all `values` and among those of the own class."""
    held = rule(values)
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(members) >= OWN_CLASS:
            held[members] &= rule(values[members])
    return held


def _far_below(values: Values) -> Flags:
    return values < UNUSUAL * np.median(values)


def _outlying(values: Values) -> Flags:
    """Below the median by more than `OUTLIER` standard deviations, which the median deviation stands for."""
    if values.size < OWN_CLASS:
        return np.zeros(values.size, bool)
    median = np.median(values)
    spread = max(1.4826 * float(np.median(np.abs(values - median))), LEAST_SPREAD)
    return values < median - OUTLIER * spread
