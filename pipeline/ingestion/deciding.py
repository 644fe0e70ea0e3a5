"""Which of the files with the same bytes is the image, if any.

The answer depends on what is listed now, not on the order in which it arrived: whatever was decided before is
decided again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.ingestion.answers import Checked
from pipeline.ingestion.reasons import CONFLICT, DUPLICATE
from pipeline.ingestion.releases import Release
from pipeline.sources.source import Item


def refuse(
    items: Sequence[Item],
    answers: Mapping[str, Checked],
    holders: Mapping[str, str],
    released: Mapping[str, Release],
) -> dict[str, Checked]:
    """Uri to the reason, of the items that cannot be used; each image is left with exactly one item or none.

    Args:
        items: everything that is listed.
        answers: uri to what was found in the file.
        holders: image id to the uri that stands for it so far; it goes on doing so while it can.
        released: uri to the decision of a person; see `releases.apply`.
    """
    refused = {}
    copies: dict[str, list[Item]] = {}
    for item in items:
        image_id = answers[item.uri].image_id
        if image_id is None:
            refused[item.uri] = answers[item.uri]
        else:
            copies.setdefault(image_id, []).append(item)
    for image_id, same in copies.items():
        if len(same) > 1:
            reasons = _among(same, holders.get(image_id), released)
            refused.update(
                {
                    uri: Checked(image_id, answers[uri].notes, reason, detail)
                    for uri, (reason, detail) in reasons.items()
                }
            )
    return refused


def _among(same: Sequence[Item], holder: str | None, released: Mapping[str, Release]) -> dict[str, tuple[str, str]]:
    """Uri to reason and detail, of those among copies of one image that do not stand for it."""
    labels = sorted({str(item.label) for item in same})
    rulings = [released[item.uri] for item in same if item.uri in released]
    if len(labels) > 1 and not rulings:
        detail = f"the same bytes lie in several classes: {', '.join(labels)}"
        return {item.uri: (CONFLICT, detail) for item in same}
    label = max(rulings, key=lambda release: release.at).label if rulings else labels[0]
    chosen = min(
        (item for item in same if item.label == label),
        key=lambda item: (item.uri != holder, item.uri not in released, item.uri),
    )
    duplicate = (DUPLICATE, f"the same bytes as {chosen.uri}")
    conflict = (CONFLICT, f"decided: {chosen.uri} was released as {label}")
    return {item.uri: duplicate if item.label == label else conflict for item in same if item is not chosen}
