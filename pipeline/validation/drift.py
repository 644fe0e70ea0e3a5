"""What profile has found of drift, as findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.settings import Policy
from pipeline.validation.verdict import Finding
from pipeline.wording import some

LABEL = "label"  # the feature whose drift is one of the mix of classes
# What is compared, in words: the new data and what they are held against.
AGAINST = {
    "live": ("the {new_images} new images", "what the live model was trained on"),
    "previous": ("the newest batch", "the batch before it"),
}


def findings(profile: Mapping[str, Any], policy: Policy) -> Iterator[Finding]:
    """Args: `profile`: metrics/profile.json."""
    for against, (new, reference) in AGAINST.items():
        found = [item for item in profile["drift"] if item["drifted"] and item["against"] == against]
        mix = [item for item in found if item["feature"] == LABEL]
        features = sorted((item for item in found if item["feature"] != LABEL), key=lambda item: -item["distance"])
        new = new.format(**profile)
        if features and policy.drift != "off":
            named = some([f"{item['feature']} (distance {item['distance']:.2f})" for item in features])
            yield Finding(
                "drift",
                policy.drift,
                f"{new} differ{'s' * (against == 'previous')} from {reference} in {named}",
                "look at the new images: a changed camera or crop is best mended at its source, a changed world is "
                "what retraining is for",
                _distances(features),
            )
        if mix and policy.class_mix != "off":
            yield Finding(
                "class_mix",
                policy.class_mix,
                f"the mix of classes of {new} differs from that of {reference} (distance {mix[0]['distance']:.2f})"
                + (f": {mix[0]['detail']}" if mix[0]["detail"] else ""),
                "check how the new images were collected and labelled; if the world has changed, none is needed",
                _distances(mix),
            )


def _distances(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {item["feature"]: item["distance"] for item in found}
