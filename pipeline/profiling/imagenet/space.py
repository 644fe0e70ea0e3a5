"""Where ImageNet's images lie in the space of embeddings: what is shipped to measure a distance from them.

M reference images in P principal directions of their own: 64 of the 1280 hold nearly half of their variance, and
keep the file below 300 kB.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import files
from pipeline.profiling.embeddings import Embedded

PATH = Path(__file__).with_name("embeddings.npz")
DIRECTIONS = 64


@dataclass(frozen=True)
class Space:
    mean: NDArray[np.float32]  # [1280]
    directions: NDArray[np.float16]  # [1280, P], orthonormal
    points: NDArray[np.float16]  # [M, P], the reference images
    max_logits: NDArray[np.float32]  # [M]

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """[N, 1280] to [N, P]."""
        return (vectors - self.mean).astype(np.float64) @ self.directions.astype(np.float64)


def of(embedded: Embedded) -> Space:
    mean = embedded.vectors.mean(axis=0)
    directions = np.linalg.svd(embedded.vectors - mean, full_matrices=False)[2][:DIRECTIONS].T
    space = Space(mean, directions.astype(np.float16), np.empty((0, 0), np.float16), embedded.max_logits)
    return Space(mean, space.directions, space.project(embedded.vectors).astype(np.float16), embedded.max_logits)


def save(space: Space, path: Path = PATH) -> None:
    with files.replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **asdict(space))


def load(path: Path = PATH) -> Space:
    with np.load(path, allow_pickle=False) as content:
        return Space(**content)
