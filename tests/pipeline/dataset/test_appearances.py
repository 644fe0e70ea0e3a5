import numpy as np
import pytest

from pipeline.dataset.appearances import standardised
from pipeline.dataset.duplicates import links

NONE = np.empty(0, np.int64)


def scenes(count: int, seed: int = 0) -> np.ndarray:
    """Smooth thumbnails: float [N, 16, 16], 60-180, of waves in all directions."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16] / 16
    waves = rng.normal(size=(count, 6, 4)) * 2
    seen = sum(np.cos(3 * (w[0] * x + w[1] * y) + w[2]) for w in waves.transpose(1, 2, 0)[..., None, None])
    low, high = seen.min((1, 2), keepdims=True), seen.max((1, 2), keepdims=True)
    return 60 + 120 * (seen - low) / (high - low)


def pairs(thumbnails: np.ndarray) -> set[tuple[int, int]]:
    seen = standardised(thumbnails.round().astype(np.uint8).reshape(-1, 256), 0.02)
    found = links(seen, np.arange(len(thumbnails) // 2), first_new=len(thumbnails) // 2, bits=3, error=0.02)
    return {tuple(pair) for pair in found.tolist()}


@pytest.mark.parametrize("axes", [(), (1,), (2,), (1, 2)])
@pytest.mark.parametrize("change", [lambda v: v, lambda v: 1.3 * v, lambda v: v - 40, lambda v: 0.7 * v + 50])
def test_mirrored_and_brightened_copies_are_near_and_nothing_else(axes: tuple[int, ...], change) -> None:
    originals = scenes(40)
    assert pairs(np.concatenate([originals, np.flip(change(originals), axes)])) == {(i, i + 40) for i in range(40)}


def test_a_symmetrical_picture_is_found_either_way() -> None:
    half = scenes(30)[:, :, :8]
    symmetrical = np.concatenate([half, half[:, :, ::-1]], axis=2)
    nearly = symmetrical + np.linspace(-2, 2, 16)
    found = pairs(np.concatenate([nearly, nearly[:, :, ::-1]]))
    assert {(i, i + 30) for i in range(30)} <= found


def test_flat_pictures_are_no_evidence() -> None:
    noise = np.random.default_rng(0).integers(100, 104, (20, 256)).astype(np.uint8)
    assert not len(standardised(noise, 0.02).image)
    assert not len(standardised(np.empty((0, 256), np.uint8), 0.02).image)
