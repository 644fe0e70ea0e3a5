"""What is not known of a model, in sentences: what nobody measured, and what rests on too few images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import wording

FEW = 10  # of 10 images all right, a recall of 0.72 is still within Wilson's 95 % interval
_NAMED = 10  # classes in one sentence


def limits(
    metrics: Mapping[str, Any], serving: Mapping[str, Any] | None, decision: Mapping[str, Any], classes: Sequence[str]
) -> list[str]:
    """Sentences. `metrics`: metrics/evaluate.json; `serving`: metrics/serving.json, None if nothing measured it."""
    return [
        *_of_test(metrics["test"], classes),
        *_of_slices(metrics.get("slices_left_out") or []),
        *_of_comparison(metrics.get("live")),
        *_of_leakage(metrics.get("leakage")),
        *_of_serving(serving),
        *_of_test_uses(decision.get("test_uses")),
    ]


def _of_test(test: Mapping[str, Any], classes: Sequence[str]) -> Iterator[str]:
    support = {label: (test["per_class"].get(label) or {}).get("support", 0) for label in classes}
    if untested := [label for label, images in support.items() if not images]:
        yield f"No held-out image shows {_names(untested)}: how well it is recognised is unknown."
    if few := [f"{label} ({images})" for label, images in support.items() if 0 < images < FEW]:
        yield f"Fewer than {FEW} held-out images show {_names(few)}: figures of these classes are rough."
    low, high = test.get("accuracy_low"), test.get("accuracy_high")
    if low is not None and high is not None and high - low > 0.1:
        yield f"{test['images']} held-out images place the accuracy between {low:.3f} and {high:.3f}, no closer."
    if unknown := [name for name, value in test.items() if value is None and not name.endswith(("_low", "_high"))]:
        yield f"The held-out images do not tell: {', '.join(name.replace('_', ' ') for name in sorted(unknown))}."


def _of_slices(left_out: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    by: dict[str, list[str]] = {}
    for row in left_out:
        if row["reason"] == "few images":
            by.setdefault(str(row["by"]), []).append(f"{row['value']} ({row['images']})")
    for name, values in by.items():
        yield f"Too few held-out images for a figure by {name}: {_names(values)}."
    for row in left_out:
        if row["reason"] == "too many values":
            yield f"There is no figure by {row['by']}: it has {row['value']}."
        elif row["reason"] == "no value":
            images, have = wording.count(row["images"], "image"), wording.agreeing(row["images"], "have no value")
            yield f"No figure by {row['by']} holds all held-out images: {images} {have} of it."


def _of_comparison(live: Mapping[str, Any] | None) -> Iterator[str]:
    if live is None:
        yield "It was compared with no other model: none was live."
    elif live.get("excluded"):
        yield (
            f"{live['excluded']} held-out images had been seen by version {live['version']} in its training and "
            "were left out of the comparison with it."
        )


def _of_leakage(leakage: Mapping[str, Any] | None) -> Iterator[str]:
    if leakage and leakage.get("images"):
        yield f"{leakage['images']} held-out images have near copies among the training images, so figures flatter."


def _of_serving(serving: Mapping[str, Any] | None) -> Iterator[str]:
    if serving is None:
        yield "How fast it answers, and whether servers load it, was not measured."
        return
    container = serving.get("container") or {"status": "skipped", "reason": "not asked for"}
    if container["status"] == "skipped":
        yield f"It was not tried in TensorFlow Serving's container: {container.get('reason') or 'no reason given'}."
    if not (serving.get("latency") or {}).get("gpu"):
        yield "How fast it answers on a GPU was not measured."


def _of_test_uses(uses: Mapping[str, Any] | None) -> Iterator[str]:
    if uses and (uses.get("median") or 0) > 0:
        yield f"The held-out images have served {uses['median']:g} earlier decisions (median), so figures may flatter."


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
