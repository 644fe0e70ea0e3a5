"""Images that every installation makes alike, with the statistics of photographs: what a backbone is proven on.

ImageNet's photographs may not be shipped. These are dead leaves (Lee, Mumford & Huang 2001): discs of all sizes that
hide each other, with power-law radii, which gives the spectrum, the edges and the flat parts of photographs; colours
have the mean and the covariance of ImageNet's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COUNT = 8
_SEED = 20_141
_DISCS = 700  # of one image; later ones hide earlier ones
_SMALLEST, _LARGEST = 0.008, 0.6  # radii, as shares of the side
_MEAN = np.array([0.485, 0.456, 0.406])  # of ImageNet, RGB in 0-1
_DEVIATION = np.array([0.229, 0.224, 0.225])
# Principal directions of ImageNet's pixels and their variances up to a factor (Krizhevsky et al. 2012).
_DIRECTIONS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
_VARIANCES = np.array([0.2175, 0.0188, 0.0045])


def make(size: int, count: int = COUNT) -> NDArray[np.uint8]:
    """uint8 [count, size, size, 3], the same whenever it is called."""
    return np.stack([_image(np.random.default_rng([_SEED, number]), size) for number in range(count)])


def _image(random: np.random.Generator, size: int) -> NDArray[np.uint8]:
    canvas = np.empty((size, size, 3))
    canvas[:] = _colours(random, 1)[0]
    # Radii with a density of r^-3; only `random` is drawn from, whose stream NumPy does not change.
    radii = size * (_SMALLEST**-2 - random.random(_DISCS) * (_SMALLEST**-2 - _LARGEST**-2)) ** -0.5
    centres = size * (random.random((_DISCS, 2)) * 1.2 - 0.1)
    colours = _colours(random, _DISCS)
    slopes = (random.random((_DISCS, 2)) - 0.5) * 0.3
    for radius, (y, x), colour, slope in zip(radii, centres, colours, slopes, strict=True):
        top, left = max(int(y - radius), 0), max(int(x - radius), 0)
        bottom, right = min(int(y + radius) + 2, size), min(int(x + radius) + 2, size)
        if top >= bottom or left >= right:
            continue
        rows = np.arange(top, bottom)[:, None] - y
        columns = np.arange(left, right)[None, :] - x
        cover = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)[..., None]  # soft over one pixel
        shade = ((slope[0] * rows + slope[1] * columns) / radius)[..., None]
        part = canvas[top:bottom, left:right]
        part += cover * (colour + shade - part)
    return np.clip(np.rint(255 * canvas), 0, 255).astype(np.uint8)


def _colours(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """[count, 3], RGB in 0-1: uniform along each principal direction."""
    spread = _DIRECTIONS * np.sqrt(_VARIANCES)
    spread *= (_DEVIATION / np.sqrt((spread**2).sum(axis=1)))[:, None]
    return _MEAN + (random.random((count, 3)) - 0.5) * np.sqrt(12) @ spread.T
