"""What two versions of a model differ in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from pipeline.promotion.card import metrics_of
from pipeline.promotion.registry import Registry


def difference(registry: Registry, a: int, b: int) -> dict[str, Any]:
    """JSON: {"a", "b", "same_data" (None if unknown), "metrics": {name: {"a", "b" ({"value","low","high"}),
    "difference" (b - a)}}, "params": {key: [a, b]} (those that differ; None where there is none), "data": {name:
    [a, b]}, "images": {label: [a, b]} (in force), "appeared", "vanished"}.

    Raises `ModelError` if a version is missing.
    """
    first, second = registry.card(a), registry.card(b)
    figures = metrics_of(first["test"]), metrics_of(second["test"])
    digests = [(card.get("data") or {}).get("digest") for card in (first, second)]
    params = [_leaves(yaml.safe_load(registry.text(version, "params.yaml"))) for version in (a, b)]
    counts = [(card.get("data") or {}).get("classes", {}) for card in (first, second)]
    return {
        "a": a,
        "b": b,
        "same_data": None if None in digests else digests[0] == digests[1],
        "metrics": {name: _compared(figures[0].get(name), figures[1].get(name)) for name in _union(*figures)},
        "params": {key: pair for key, pair in _pairs(*params).items() if pair[0] != pair[1]},
        "data": _pairs(_sizes(first), _sizes(second)),
        "images": _pairs(*counts),
        "appeared": [label for label in second["classes"] if label not in first["classes"]],
        "vanished": [label for label in first["classes"] if label not in second["classes"]],
    }


def _sizes(card: Mapping[str, Any]) -> dict[str, Any]:
    data = card.get("data") or {}
    return {
        "images in force": data.get("images"),
        **{f"images for {split}": count for split, count in (card.get("images") or {}).items()},
        "held-out images": card["test"].get("images"),
        "classes": len(card["classes"]),
        "in quarantine": sum(data["quarantined"].values()) if "quarantined" in data else None,
        "batches": len(data["batches"]) if "batches" in data else None,
    }


def _compared(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> dict[str, Any]:
    values = [row["value"] if row else None for row in (a, b)]
    known = None not in values
    return {"a": a, "b": b, "difference": values[1] - values[0] if known else None}  # type: ignore[operator]


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {key: [a.get(key), b.get(key)] for key in _union(a, b)}


def _union(a: Iterable[str], b: Iterable[str]) -> list[str]:
    """In the order of `a`, then what only `b` has."""
    return list(dict.fromkeys([*a, *b]))


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key of each value that is no mapping with content."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    return found
