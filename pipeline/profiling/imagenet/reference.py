"""How ImageNet looks, measured by the same code as every other dataset, and in what words a dataset differs from it.

`reference.json` holds numbers only, with where they come from; `refit reference build` measures them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import files
from pipeline.profiling import features

PATH = Path(__file__).with_name("reference.json")
BINS = 32  # of the histograms
QUANTILES = tuple(round(0.05 * step, 2) for step in range(21))  # 0, 0.05, ..., 1
GREY_SATURATION = 0.01  # mean saturation below this is grey to the eye; JPEG's rounding leaves about 0.002

SIZE_FACTOR = 1.5  # a median side so many times larger or smaller is named
CHANNEL_SIGMAS = 0.5  # channel means farther off than this are named
CENTRAL = (0.1, 0.9)  # a median beyond this share of ImageNet's images is named
# Sizes and colours have sentences of their own.
COMPARED = ("aspect_ratio", "brightness", "contrast", "saturation", "sharpness", "entropy", "edge_density")


@dataclass(frozen=True)
class Histogram:
    """`BINS` bins of equal width from `low` to `high`; the first and the last hold what lies beyond, too."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Distribution:
    mean: float
    std: float
    quantiles: tuple[float, ...]  # at `QUANTILES`
    histogram: Histogram

    @property
    def median(self) -> float:
        return self.quantiles[len(QUANTILES) // 2]

    def share_below(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Share of ImageNet's images whose feature is below each value, 0-1, to about 0.02."""
        return np.interp(np.asarray(values, np.float64), self.quantiles, QUANTILES)


@dataclass(frozen=True)
class Reference:
    source: str  # which images, in words
    images: int
    images_digest: str  # SHA-256 of their sorted image ids, one to a line
    built: str  # date
    versions: Mapping[str, str]  # of what measured them
    features_version: int
    grey_share: float  # 0-1
    features: dict[str, Distribution]


def load(path: Path = PATH) -> Reference:
    content = files.read_json(path)
    distributions = {
        name: Distribution(value["mean"], value["std"], tuple(value["quantiles"]), _histogram(**value["histogram"]))
        for name, value in content.pop("features").items()
    }
    return Reference(**content, features=distributions)


def save(reference: Reference, path: Path = PATH) -> None:
    files.write_json(path, asdict(reference))


def summarise(table: pa.Table, *, source: str, built: str, versions: Mapping[str, str]) -> Reference:
    """The reference numbers of a feature table, rounded to 6 significant digits."""
    return Reference(
        source=source,
        images=table.num_rows,
        images_digest=hashlib.sha256("\n".join(sorted(table["image_id"].to_pylist())).encode()).hexdigest(),
        built=built,
        versions=versions,
        features_version=features.VERSION,
        grey_share=grey_share(table),
        features={
            name: _distribution(table[name].to_numpy().astype(np.float64))
            for name in features.NUMERIC
            if name != "bytes"
        },
    )


def gap(table: pa.Table, reference: Reference) -> list[str]:
    """Plain sentences, one for each way in which the images are unlike ImageNet's; empty if there is none."""
    return [
        *_grey_gap(table, reference),
        *_size_gap(table, reference),
        *_channel_gap(table, reference),
        *_other_gaps(table, reference),
    ]


def _grey_gap(table: pa.Table, reference: Reference) -> Sequence[str]:
    share = grey_share(table)
    if share < max(0.5, 2 * reference.grey_share):
        return []
    return [f"grayscale: {share:.0%} of the images have no colour (ImageNet: {reference.grey_share:.0%})"]


def _size_gap(table: pa.Table, reference: Reference) -> Sequence[str]:
    # The geometric mean of the two medians: one length, whatever the orientation.
    ours = float(np.sqrt(_median(table, "width") * _median(table, "height")))
    theirs = float(np.sqrt(reference.features["width"].median * reference.features["height"].median))
    factor = max(ours / theirs, theirs / ours)
    if factor < SIZE_FACTOR:
        return []
    word = "larger" if ours > theirs else "smaller"
    return [f"{factor:.1f}× {word} than ImageNet's median (side {ours:.0f} px against {theirs:.0f} px)"]


def _channel_gap(table: pa.Table, reference: Reference) -> Sequence[str]:
    """In units of the spread of ImageNet's own images around their common mean."""
    offsets = {}
    for name in ("mean_r", "mean_g", "mean_b"):
        theirs = reference.features[name]
        offsets[name] = (float(np.mean(table[name].to_numpy())) - theirs.mean) / theirs.std
    worst = max(offsets.values(), key=abs)
    if abs(worst) < CHANNEL_SIGMAS:
        return []
    each = ", ".join(f"{name[-1].upper()} {round(value, 1) + 0.0:+}" for name, value in offsets.items())
    return [f"channel means off by {abs(worst):.1f} σ ({each})"]


def _other_gaps(table: pa.Table, reference: Reference) -> Sequence[str]:
    sentences = []
    for name in COMPARED:
        if name == "saturation" and _grey_gap(table, reference):
            continue
        ours = _median(table, name)
        below = float(reference.features[name].share_below(ours))
        if CENTRAL[0] <= below <= CENTRAL[1]:
            continue
        side, share = ("above", below) if below > 0.5 else ("below", 1 - below)
        median = reference.features[name].median
        sentences.append(
            f"{name.replace('_', ' ')}: the median {ours:.3g} lies {side} {share:.0%} of ImageNet's images "
            f"(median {median:.3g})"
        )
    return sentences


def grey_share(table: pa.Table) -> float:
    """Share of the images that have no colour, 0-1."""
    return float(np.mean(table["saturation"].to_numpy() < GREY_SATURATION))


def _median(table: pa.Table, name: str) -> float:
    return float(np.median(table[name].to_numpy()))


def _distribution(values: npt.NDArray[np.float64]) -> Distribution:
    # Without the extreme 0.5 % on each side, which would leave the rest one bin.
    low, high = (_short(value) for value in np.quantile(values, (0.005, 0.995)))
    counts, _ = np.histogram(values.clip(low, high), bins=BINS, range=(low, high))
    return Distribution(
        _short(values.mean()),
        _short(values.std()),
        tuple(_short(value) for value in np.quantile(values, QUANTILES)),
        Histogram(low, high, tuple(counts.tolist())),
    )


def _histogram(low: float, high: float, counts: Sequence[int]) -> Histogram:
    return Histogram(low, high, tuple(counts))


def _short(value: float) -> float:
    return float(f"{value:.6g}")
