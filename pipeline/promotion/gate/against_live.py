"""Rules on the candidate beside the live model, on held-out images that the live model never trained on.

A class or a slice refuses the candidate when it is *shown to be worse*: even the high end of its interval, which holds
for all of them at once, lies below minus the tolerance. To ask instead that each be *shown not to be worse* would be
stricter in words and useless in fact: a class of ten images has an interval of some 0.4 in width, so no candidate
could ever pass, not even the live model against itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline import wording
from pipeline.promotion.gate.evidence import Evidence
from pipeline.promotion.gate.rule import Rule, at_least, figure, no_figure
from pipeline.settings import Gate

_WORSE_BY = -1e-9  # see `rule._ROUNDING`


def gain(evidence: Evidence, settings: Gate) -> Rule:
    found = judged(evidence)
    low, high = figure(found, "difference_low"), figure(found, "difference_high")
    if has_new_classes(evidence):
        where, further = f" on {_known_classes(found)}", ""  # McNemar's counts are of all images
    else:
        where, further = "", _disagreement(evidence.compared)
    return at_least(
        "gain over live",
        figure(found, "difference"),
        settings.min_gain,
        f"Balanced accuracy{where} is {{value:+.3f}} against the live model{_between(low, high)}; {{bar:+.3f}} is "
        f"asked for.{further}",
        low=low,
        high=high,
    )


def gain_with_confidence(evidence: Evidence, settings: Gate) -> Rule:
    found = judged(evidence)
    where = f" of {_known_classes(found)}" if has_new_classes(evidence) else ""
    return at_least(
        "gain with confidence",
        figure(found, "difference_low"),
        settings.min_gain_low,
        f"On these {found.get('images')} images{where} the difference may be {{value:+.3f}} (low end of its "
        "interval); {bar:+.3f} is allowed. More held-out images narrow it.",
    )


def has_new_classes(evidence: Evidence) -> bool:
    return bool(evidence.compared.get("new_classes"))


def judged(evidence: Evidence) -> Mapping[str, Any]:
    """The comparison that decides: where there are new classes, that on the known ones alone.

    The live model gets each image of a new class wrong, which is no merit of the candidate.
    """
    if not has_new_classes(evidence):
        return evidence.compared
    return evidence.compared.get("known") or {}


def _known_classes(found: Mapping[str, Any]) -> str:
    classes = figure(found, "classes")
    return f"the {wording.count(int(classes or 0), 'class', 'classes')} that the live model knows"


def no_class_lost(evidence: Evidence, settings: Gate) -> Rule:
    rows = _with_images(evidence.compared.get("per_class") or {})
    highs = {f"{label!r}": figure(row, "difference_high_all") for label, row in rows.items()}
    return _none_lost("no class lost", highs, settings.max_class_loss, "class", "classes", "Recall")


def no_slice_lost(evidence: Evidence, settings: Gate) -> Rule:
    """Slices by label are left to `no_class_lost`."""
    if not isinstance(slices := evidence.metrics.get("slices"), list):
        return no_figure("no slice lost", -settings.max_slice_loss)
    highs = {
        f"{part['by']} {part['value']!r}": figure(part, "difference_high_all")
        for part in slices
        if part["by"] != "label" and part.get("compared")
    }
    return _none_lost("no slice lost", highs, settings.max_slice_loss, "slice", "slices", "Accuracy", may_be_empty=True)


def new_classes(evidence: Evidence, settings: Gate) -> Rule | None:
    """None without new classes. Nothing to compare with, so a floor of their own."""
    new = evidence.compared.get("new_classes")
    if not new:
        return None
    rows = {label: (evidence.section("test").get("per_class") or {}).get(label, {}) for label in new}
    highs = {label: figure(row, "recall_high") for label, row in rows.items() if row.get("support") != 0}
    unknown = [label for label, high in highs.items() if high is None]
    bar = settings.min_new_class_recall
    if unknown:
        return no_figure("new classes", bar, f"the recall of {wording.names(unknown)}")
    weak = {label: high for label, high in highs.items() if high is not None and high < bar + _WORSE_BY}
    value = min((high for high in highs.values() if high is not None), default=None)
    if weak:
        found = wording.some([f"{label!r} (at best {high:.3f})" for label, high in sorted(weak.items())])
        return Rule(
            "new classes", False, value, bar, f"New classes are recalled below {bar:.3f} beyond doubt: {found}."
        )
    untested = len(rows) - len(highs)
    words = f"The live model does not know {wording.names(new)}; none is recalled below {bar:.3f} beyond doubt"
    return Rule("new classes", True, value, bar, f"{words}{f', {untested} without a test image' if untested else ''}.")


def dropped_classes(evidence: Evidence, settings: Gate) -> Rule:
    lost = sorted(dropped(evidence))
    bar = "any" if settings.allow_dropped_classes else "none"
    if evidence.compared.get("dropped_classes") is None:
        return no_figure("dropped classes", bar)
    if not lost:
        explanation = "The candidate has learned every class of the live model and of the test set."
    else:
        explanation = (
            f"The candidate has not learned {wording.names(lost)}, which the live model or the test set has"
            + (
                "; gate.allow_dropped_classes lets it."
                if settings.allow_dropped_classes
                else ". Bring images of it back, or set gate.allow_dropped_classes."
            )
        )
    return Rule(
        "dropped classes", not lost or settings.allow_dropped_classes, ", ".join(lost) or "none", bar, explanation
    )


def dropped(evidence: Evidence) -> set[str]:
    """Classes of the live model, or of the test set, without an image that the candidate was trained on.

    A class that has left the source keeps its place among the classes of the shards, but nobody teaches it any more.
    """
    compared = evidence.compared
    live = set(compared.get("per_class") or ()) - set(compared.get("new_classes") or ())
    return (set(compared.get("dropped_classes") or ()) | live | evidence.tested) - evidence.taught


RULES = (
    gain,
    gain_with_confidence,
    no_class_lost,
    no_slice_lost,
    new_classes,
    dropped_classes,
)


def comparison(evidence: Evidence) -> Rule:
    """Whether there is anything to compare; if not, no other rule of this module applies but for dropped classes."""
    images = figure(evidence.compared, "images") or 0
    return Rule(
        "comparison with live",
        images > 0,
        images,
        1,
        f"{images} held-out images are new to the live model."
        if images
        else "No held-out image is new to the live model, so the two cannot be compared.",
    )


def _with_images(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {label: row for label, row in rows.items() if row.get("support") != 0}


def _none_lost(
    rule: str,
    highs: Mapping[str, float | None],
    tolerance: float,
    one: str,
    many: str,
    what: str,
    *,
    may_be_empty: bool = False,
) -> Rule:
    unknown = [name for name, high in highs.items() if high is None]
    if unknown or not (highs or may_be_empty):
        return no_figure(rule, -tolerance, f"the difference of {_some(unknown)}" if unknown else None)
    known = {name: high for name, high in highs.items() if high is not None}
    worse = {name: high for name, high in known.items() if high < -tolerance + _WORSE_BY}
    worst = min(known.values(), default=None)
    if worse:
        found = _some([f"{name} (at best {high:+.3f})" for name, high in sorted(worse.items())])
        explanation = f"{what} has fallen by more than {tolerance:.3f} beyond doubt: {found}."
    else:
        explanation = (
            f"None of {wording.count(len(known), one, many)} is worse by more than {tolerance:.3f} beyond doubt."
        )
    return Rule(rule, not worse, worst, -tolerance, explanation)


def _some(names: Iterable[str]) -> str:
    return wording.some(list(names))


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})"


def _disagreement(compared: Mapping[str, Any]) -> str:
    ours, theirs = (figure(compared, "mcnemar", name) for name in ("only_candidate", "only_live"))
    chance = figure(compared, "mcnemar", "p_value")
    if ours is None or theirs is None or chance is None:
        return ""
    return (
        f" {ours:.0f} images only the candidate gets right, {theirs:.0f} only the live model (McNemar p {chance:.2f})."
    )
