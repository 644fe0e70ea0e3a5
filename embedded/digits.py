"""Scikit-learn's handwritten digits, 1797 real scans of 8×8 gray pixels, as PNG files in class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

HELD_BACK_EVERY = 6  # each sixth image waits for the second delivery
WHITE = 16  # load_digits counts ink from 0 to 16


def deliver(inbox: Path, *, late: bool) -> int:
    """Write the first delivery, or the late one, to `inbox/<digit>/NNNN.png`; gives the number of images.

    Each file appears whole: it is written beside the inbox and moved in.
    """
    digits = load_digits()
    pixels = np.round(digits.images * (255 / WHITE)).astype(np.uint8)
    unfinished = inbox.parent / "unfinished.png"
    numbers = [number for number in range(len(pixels)) if (number % HELD_BACK_EVERY == 0) == late]
    for number in numbers:
        folder = inbox / str(digits.target[number])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(unfinished)
        unfinished.replace(folder / f"{number:04d}.png")
    return len(numbers)
