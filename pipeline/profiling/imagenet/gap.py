"""How far a dataset is from ImageNet, for a network that was trained on it: one score, 0-1, and what it consists of.

It is the mean of four distances that are 0-1 each:

- `recognition`: how much less sure ImageNet's own classifier is of these images than of ImageNet's. The largest logit
  (Hendrycks et al., Scaling out-of-distribution detection for real-world settings, 2022) of an image of either kind,
  drawn at random: probability that ImageNet's is larger minus probability that it is smaller.
- `appearance`: the same difference of probabilities for the features of the profile: the mean of the farthest one of
  `colour`, of `tone` and of `detail`.
- `grey`: how much more of the images have no colour at all, as X-rays and industrial cameras have none.
- `frechet`: the Fréchet distance of the embeddings, as a share of how widely ImageNet itself is spread.

The first two compare where the images lie, not how widely they are spread, so a folder of one breed of dogs, narrow
but natural, is not called far. The Fréchet distance does count narrowness, and so does `two_sample`, how well a
cross-validated linear classifier tells the images from ImageNet's (0 not at all, 1 always), which is 1 for most
datasets of few classes and no part of the score.

Scores measured with half of the sample as the reference: its other half 0.07, the dogs of that 0.15, photographs of
objects and monuments 0.25-0.3, textures 0.35-0.5, aerial 0.6, hands before a wall 0.6, CT, magnetic tiles and
radiographs 0.9-0.95. 25 images give what 400 give to 0.02, or 0.04 if they are near.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.profiling import discriminant
from pipeline.profiling.embeddings import Embedded
from pipeline.profiling.imagenet.reference import Reference, grey_share
from pipeline.profiling.imagenet.space import Space

MIN_IMAGES = 20  # fewer tell nothing
COMPARED = 5000  # images at most, of the embedded ones; more change no digit that is shown
APPEARANCE = {
    "colour": ("mean_r", "mean_g", "mean_b", "saturation", "colourfulness"),
    "tone": ("brightness", "contrast", "entropy"),
    "detail": ("sharpness", "edge_density"),
}
SCORED = ("recognition", "appearance", "grey", "frechet")
WORDS = (
    (0.2, "like ImageNet's photographs; its features fit as they are"),
    (0.45, "photographs of other things than ImageNet's, or of their details; its features fit well"),
    (0.7, "another kind of picture than ImageNet's; fine-tune more blocks than usual"),
    (1.0, "far from photographs; fine-tune deeply, and expect less of pretrained weights"),
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DomainGap:
    score: float  # 0-1
    words: str
    images: int  # that were compared by their embeddings
    parts: dict[str, float]  # 0-1 each, `frechet` may be larger


def measure(table: pa.Table, embedded: Embedded, reference: Reference, space: Space) -> DomainGap | None:
    """The gap between the current images (feature rows, embeddings) and ImageNet; None with too few embedded."""
    if len(embedded) < MIN_IMAGES:
        return None
    points = space.project(embedded.vectors[:COMPARED])
    theirs = space.points.astype(np.float64)
    appearance = {kind: max(_shift(table, reference, name) for name in names) for kind, names in APPEARANCE.items()}
    parts = {
        "recognition": max(0.0, -_dominance(embedded.max_logits, space.max_logits)),
        "appearance": float(np.mean(list(appearance.values()))),
        "grey": max(0.0, grey_share(table) - reference.grey_share),
        "frechet": frechet(points, theirs),
        "two_sample": two_sample(points, theirs),
        **appearance,
    }
    score = float(np.mean([min(1.0, parts[name]) for name in SCORED]))
    words = next(words for limit, words in WORDS if score <= limit)
    return DomainGap(score, words, len(embedded), parts)


def _dominance(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> float:
    """P(ours > theirs) - P(ours < theirs) (Cliff's delta), -1 to 1, of one number drawn at random from each."""
    ordered = np.sort(theirs)
    below, not_above = (np.searchsorted(ordered, ours, side=side) for side in ("left", "right"))
    return float(np.mean(below + not_above) / len(theirs) - 1)


def _shift(table: pa.Table, reference: Reference, name: str) -> float:
    """Size of Cliff's delta between our images and ImageNet's, 0-1, less what chance adds to it."""
    ours = table[name].to_numpy()
    delta = 2 * float(reference.features[name].share_below(ours).mean()) - 1
    n, m = len(ours), reference.images
    variance = (n + m + 1) / (3 * n * m)  # of delta between two samples of one distribution (Mann and Whitney 1947)
    return float(np.sqrt(max(0.0, delta**2 - variance)))


def frechet(ours: Floats, theirs: Floats) -> float:
    """Fréchet distance of two samples [N, P] and [M, P] taken for Gaussians, in units of the variance of `theirs`.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) over tr(C2) (Heusel et al., GANs trained by a two time-scale update rule,
    2017). The covariances are Ledoit and Wolf's: those of 50 images in 64 dimensions would add half a unit by chance.
    """
    # Imported late: scikit-learn takes a second.
    from sklearn.covariance import ledoit_wolf

    cov_1, cov_2 = ledoit_wolf(ours)[0], ledoit_wolf(theirs)[0]
    values, vectors = np.linalg.eigh(cov_2)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_1 @ root).clip(0)).sum()
    offset = np.sum((ours.mean(axis=0) - theirs.mean(axis=0)) ** 2)
    distance = offset + np.trace(cov_1) + np.trace(cov_2) - 2 * cross
    return float(max(0.0, distance) / np.trace(cov_2))


def two_sample(ours: Floats, theirs: Floats) -> float:
    """2 AUC - 1, 0-1, of a cross-validated linear classifier between the samples (Lopez-Paz & Oquab 2017)."""
    classes = np.repeat([1, 0], [len(ours), len(theirs)])
    fold = np.arange(len(classes)) % discriminant.FOLDS
    scores = discriminant.out_of_fold(np.concatenate([ours, theirs]), classes, fold)
    towards_ours = scores[:, 1] - scores[:, 0]
    return max(0.0, _dominance(towards_ours[classes == 1], towards_ours[classes == 0]))
