"""What is judged of the dataset as a whole: classes, quarantine, balance and drift. Each check gives its findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.dataset.ingest import DUPLICATE
from pipeline.settings import Validate
from pipeline.validation.verdict import Finding

# Above it, a model that never names the rare class can still look good; class weights and the balanced accuracy help.
IMBALANCE = 10.0  # largest class / smallest class
NAMED = 5  # of a longer list of classes or features in one sentence


def check(
    classes: Mapping[str, int], *, ingest: Mapping[str, Any], profile: Mapping[str, Any], limits: Validate, folds: int
) -> list[Finding]:
    """All findings.

    Args:
        classes: label to number of current images.
        ingest: metrics/ingest.json.
        profile: metrics/profile.json.
    """
    return [
        *_class_count(classes, limits.min_classes),
        *_class_size(classes, folds=folds, wanted=limits.min_per_class),
        *_quarantine(ingest["batches"], limits.max_quarantine_share),
        *_imbalance(classes),
        *_drift(profile),
        *_class_changes(classes, profile["live_classes"]),
    ]


def _class_count(classes: Mapping[str, int], minimum: int) -> Iterable[Finding]:
    if len(classes) < minimum:
        found = f"only the class {next(iter(classes))!r}" if len(classes) == 1 else f"{len(classes)} classes"
        yield Finding(
            "class-count",
            "block",
            f"found {found}, expected at least {minimum} classes",
            "put the images into one folder per class and name the folder above them as the source",
            {"classes": len(classes), "min_classes": minimum},
        )


def _class_size(classes: Mapping[str, int], *, folds: int, wanted: int) -> Iterable[Finding]:
    too_few = {label: count for label, count in classes.items() if count < folds}
    few = {label: count for label, count in classes.items() if folds <= count < wanted}
    if too_few:
        affordable = min(too_few.values())
        fix = f"add images of {_names(too_few)}"
        if affordable >= 2:
            parts = [*(f"fold-{number}" for number in range(affordable)), "final"]
            fix += f", or lower the folds with --set 'train.parts=[{', '.join(parts)}]'"
        yield Finding("class-size", "block", f"{_sizes(too_few)}, fewer than the {folds} folds", fix, too_few)
    if few:
        yield Finding(
            "class-size",
            "warn",
            f"{_sizes(few)}, fewer than validate.min_per_class = {wanted}",
            f"add images of {_names(few)}; what is said about a small class is uncertain",
            few,
        )


def _quarantine(batches: list[Mapping[str, Any]], allowed: float) -> Iterable[Finding]:
    if not batches:
        return
    newest = batches[-1]
    # A second copy of a known image is set aside too, but nothing is lost with it.
    lost = {reason: count for reason, count in newest["quarantined"].items() if reason != DUPLICATE}
    unusable = sum(lost.values())
    new = newest["accepted"] + unusable
    if new and unusable / new > allowed:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(lost.items()))
        yield Finding(
            "quarantine-share",
            "block",
            f"{unusable} of the {new} new images of batch {newest['batch']} cannot be used ({reasons}), "
            f"more than validate.max_quarantine_share = {allowed:.0%}",
            "mend the files that data/quarantine lists, or raise validate.max_quarantine_share",
            {"share": unusable / new, "allowed": allowed, **lost},
        )


def _imbalance(classes: Mapping[str, int]) -> Iterable[Finding]:
    if len(classes) < 2:
        return
    largest, smallest = max(classes, key=classes.__getitem__), min(classes, key=classes.__getitem__)
    ratio = classes[largest] / classes[smallest]
    if ratio > IMBALANCE:
        yield Finding(
            "imbalance",
            "warn",
            f"{largest!r} has {ratio:.0f} times the images of {smallest!r} "
            f"({classes[largest]} and {classes[smallest]})",
            f"add images of {smallest!r}, keep train.head.class_weights=balanced and judge by the balanced accuracy",
            {"ratio": ratio},
        )


def _drift(profile: Mapping[str, Any]) -> Iterable[Finding]:
    drifted = {item["feature"]: item["distance"] for item in profile["drift"] if item["drifted"]}
    if drifted:
        worst = sorted(drifted, key=drifted.__getitem__, reverse=True)
        named = _shortened([f"{name} (distance {drifted[name]:.2f})" for name in worst])
        yield Finding(
            "drift",
            "warn",
            f"the {profile['new_images']} new images differ from what the live model was trained on in {named}",
            "look at the new images: a changed camera or crop is best mended at its source, a changed world is what "
            "retraining is for",
            drifted,
        )


def _class_changes(classes: Mapping[str, int], live: Mapping[str, int] | None) -> Iterable[Finding]:
    if live is None:
        return
    gone = {label: count for label, count in live.items() if label not in classes}
    added = {label: count for label, count in classes.items() if label not in live}
    if gone:
        yield Finding(
            "class-vanished",
            "warn",
            f"the live model knows {_names(gone)}, of which there is no image any more",
            "restore the images, or let the new model forget the class",
            gone,
        )
    if added:
        yield Finding(
            "class-added",
            "warn",
            f"the live model does not know {_names(added)}",
            "none, if the class is meant; else move its images to the class they belong to",
            added,
        )


def _sizes(classes: Mapping[str, int]) -> str:
    if len(classes) == 1:
        ((label, count),) = classes.items()
        return f"class {label!r} has {count} image{'s' if count > 1 else ''}"
    return f"{len(classes)} classes have too few images: " + _shortened(
        [f"{label!r} {classes[label]}" for label in sorted(classes, key=classes.__getitem__)]
    )


def _names(classes: Mapping[str, int]) -> str:
    return _shortened([repr(label) for label in sorted(classes)])


def _shortened(items: list[str]) -> str:
    return ", ".join(items[:NAMED]) + (f" and {len(items) - NAMED} more" if len(items) > NAMED else "")
