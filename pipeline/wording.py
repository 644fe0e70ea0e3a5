"""Counts and lists in sentences: long ones are cut, so that a thousand classes do not fill a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

SINGULAR = {"are": "is", "have": "has"}
NAMED = 5  # of a longer list in one sentence


def count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def agreeing(number: int, predicate: str) -> str:
    """`predicate`, which starts with a verb in the plural, as it follows "`number` of 200 images"."""
    verb, _, rest = predicate.partition(" ")
    return predicate if number != 1 else f"{SINGULAR.get(verb, verb + 's')} {rest}"


def names(labels: Iterable[str]) -> str:
    return some([repr(label) for label in sorted(labels)])


def sizes(classes: Mapping[str, int]) -> str:
    """Smallest first."""
    if len(classes) == 1:
        ((label, images),) = classes.items()
        return f"class {label!r} has {count(images, 'image')}"
    return f"{len(classes)} classes have too few images: " + some(
        [f"{label!r} {classes[label]}" for label in sorted(classes, key=classes.__getitem__)]
    )


def some(items: Sequence[str], shown: int = NAMED) -> str:
    return ", ".join(items[:shown]) + (f" and {len(items) - shown} more" if len(items) > shown else "")
