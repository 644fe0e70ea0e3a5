"""`reports/validation/index.html`: the verdict on the data for people, with the pictures that it is about.

One file that needs nothing beside itself. Labels, file names and messages come from outside, so the template escapes
everything; the page's own content security policy allows no script and no request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.dataset import store
from pipeline.ingestion import reasons
from pipeline.pages import histograms
from pipeline.pages.environment import environment
from pipeline.pages.thumbnails import Album
from pipeline.profiling.imagenet import reference
from pipeline.validation.drift import LABEL
from pipeline.validation.tables import Tables
from pipeline.validation.verdict import Finding, Verdict

TEMPLATE = "page.html.j2"
PICTURES = 2_500_000  # bytes of all pictures together, which keeps the page below 3 MB
SUSPECTS = 24
QUARANTINED_PICTURES = 24
QUARANTINED_ROWS = 300
OPEN_ROWS = 30  # longer tables start folded
END_ROWS = 8  # of a folded table of classes, so many of the smallest and of the largest stay in sight
NUMBERS = 8  # of a finding

# What tells most about a set of images: feature to its title and the scale of its axis.
FEATURES = {
    "width": ("Width (pixels)", "log"),
    "height": ("Height (pixels)", "log"),
    "aspect_ratio": ("Aspect ratio (width / height)", "log"),
    "brightness": ("Brightness (mean luma, 0–1)", "linear"),
    "contrast": ("Contrast (deviation of luma, 0–1)", "linear"),
    "entropy": ("Entropy (bits of the luma histogram)", "linear"),
    "mean_r": ("Mean red (0–1)", "linear"),
    "mean_g": ("Mean green (0–1)", "linear"),
    "mean_b": ("Mean blue (0–1)", "linear"),
    "saturation": ("Saturation (0–1)", "linear"),
    "sharpness": ("Sharpness (variance of the Laplacian)", "log"),
    "edge_density": ("Edges (share of pixels, 0–1)", "linear"),
}
OURS, LIVE, IMAGENET = "ours", "live", "imagenet"  # CSS classes of the outlines


@dataclass(frozen=True)
class Evidence:
    """Contents as in `pipeline.validation.validate.validate`."""

    verdict: Verdict
    tables: Tables
    features: pa.Table
    quarantine: pa.Table
    suspects: pa.Table
    training: pa.Table | None
    new: pa.Table  # feature rows of the images that are new to the live model; without one, of all
    profile: Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    uri: str
    label: str | None
    picture: str | None  # data: URI
    note: str = ""


def render(evidence: Evidence, *, max_pixels: int) -> str:
    """The page. Pictures are drawn from the image store."""
    verdict = evidence.verdict
    files = evidence.tables.files.drop_duplicates("item").set_index("item")
    waiting = evidence.quarantine.to_pylist()
    # A drift of few new images would not be seen among all.
    shown = evidence.new if evidence.new.num_rows else evidence.features
    album = Album(store.present, max_pixels=max_pixels, budget=PICTURES)
    return (
        environment(Path(__file__).parent)
        .get_template(TEMPLATE)
        .render(
            headline=headline(verdict),
            verdict=verdict,
            profile=evidence.profile,
            findings=[(finding, _examples(finding, files, album)) for finding in verdict.findings],
            suspects=[_suspect(row, album) for row in evidence.suspects.slice(0, SUSPECTS).to_pylist()],
            suspected=evidence.suspects.num_rows,
            panels=panels(shown, evidence.training, evidence.profile),
            shown=shown.num_rows,
            panel_size=histograms,
            classes=classes(evidence.tables.classes, evidence.profile["live_classes"]),
            drift=drift(evidence.profile["drift"]),
            quarantined=len(waiting),
            quarantine_reasons=[
                (reason, number, reasons.CURES.get(reason, ""))
                for reason, number in Counter(row["reason"] for row in waiting).most_common()
            ],
            quarantine_pictures=_quarantine_pictures(waiting, album),
            quarantine_rows=waiting[:QUARANTINED_ROWS],
            open_rows=OPEN_ROWS,
            end_rows=END_ROWS,
            numbers_shown=NUMBERS,
            label=LABEL,
        )
    )


def headline(verdict: Verdict) -> dict[str, str]:
    """`mark` (a CSS class), `title`, `text`."""
    blocking = sum(finding.severity == "block" for finding in verdict.findings)
    warnings = len(verdict.findings) - blocking
    found = f"{warnings} warning{'s' * (warnings != 1)}"
    if blocking:
        text = f"{blocking} finding{'s' * (blocking != 1)} must be mended first" + (f"; {found}." if warnings else ".")
        return {"mark": "bad", "title": "Blocked: the data cannot be trained on", "text": text}
    if warnings:
        return {"mark": "warn", "title": f"Passed with {found}", "text": "Nothing here stops the training."}
    return {"mark": "good", "title": "Passed", "text": "Every check was passed, nothing was found."}


def panels(
    table: pa.Table, training: pa.Table | None, profile: Mapping[str, Any]
) -> list[tuple[str, histograms.Panel, Mapping[str, Any], bool]]:
    """For each of `FEATURES`: its name, the drawing, its medians, and whether it has drifted."""
    imagenet = reference.load().features
    drifted = {item["feature"] for item in profile["drift"] if item["drifted"]}
    found = []
    for name, (title, scale) in FEATURES.items():
        drawn: dict[str, histograms.Sample | histograms.Quantiles] = {OURS: _sample(table, name)}
        if training is not None and training.num_rows:
            drawn[LIVE] = _sample(training, name)
        if name in imagenet:
            drawn[IMAGENET] = _imagenet(imagenet[name])
        panel = histograms.panel(title, drawn, scale="log" if scale == "log" else "linear")
        medians = profile["features"][name] | {"median": float(np.median(table[name].to_numpy()))}
        found.append((name, panel, medians, name in drifted))
    return found


def _imagenet(known: reference.Distribution) -> histograms.Quantiles:
    """Both its quantiles and the edges of its histogram are points of one cumulative distribution."""
    counts = np.array(known.histogram.counts)
    edges = np.linspace(known.histogram.low, known.histogram.high, counts.size + 1)[1:-1]
    points = sorted(
        [
            *zip(known.quantiles, reference.QUANTILES, strict=True),
            *zip(edges.tolist(), (counts.cumsum() / counts.sum()).tolist(), strict=False),
        ]
    )
    values, shares = np.array(points).T
    return histograms.Quantiles(values.tolist(), np.maximum.accumulate(shares).tolist())


def _sample(table: pa.Table, name: str) -> histograms.Sample:
    return histograms.Sample(table[name].to_numpy().astype(np.float64))


def classes(table: pd.DataFrame, live: Mapping[str, int] | None) -> list[dict[str, Any]]:
    """Smallest first: `label`, `images`, `live` (None without a live model), and both as shares of the largest."""
    images = dict(zip(table["item"], table["images"].tolist(), strict=True))
    known = live or {}
    largest = max([*images.values(), *known.values()], default=1)
    labels = sorted({*images, *known}, key=lambda label: (images.get(label, 0), label))
    return [
        {
            "label": label,
            "images": images.get(label, 0),
            "live": None if live is None else known.get(label, 0),
            "bar": images.get(label, 0) / largest,
            "live_bar": known.get(label, 0) / largest,
        }
        for label in labels
    ]


def drift(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """By what was compared; what has drifted first, then the largest distance in units of its threshold."""
    compared: dict[str, list[Mapping[str, Any]]] = {}
    for item in sorted(found, key=lambda item: (not item["drifted"], -item["distance"])):
        compared.setdefault(item["against"], []).append(item)
    return compared


def _examples(finding: Finding, files: pd.DataFrame, album: Album) -> list[Example]:
    if finding.check == "suspected_labels":  # have a section of their own
        return []
    known = files.loc[[uri for uri in finding.examples if uri in files.index]].to_dict("index")
    return [Example(str(uri), row["label"], album.picture(row["image_id"])) for uri, row in known.items()]


def _suspect(row: Mapping[str, Any], album: Album) -> Example:
    note = f"looks like {row['suggested']} ({row['suggested_probability']:.0%}, {row['label_probability']:.0%})"
    return Example(row["uri"], row["label"], album.picture(row["image_id"]), note)


def _quarantine_pictures(rows: Sequence[Mapping[str, Any]], album: Album) -> list[Example]:
    """Those whose bytes were kept because they are images."""
    drawn = (Example(row["uri"], row["label"], album.picture(row["image_id"]), row["reason"]) for row in rows)
    found = []
    for example in drawn:
        if example.picture is not None:
            found.append(example)
        if len(found) == QUARANTINED_PICTURES:
            break
    return found
