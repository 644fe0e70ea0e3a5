"""A version of a model, named by its number or an alias."""

from __future__ import annotations

from pipeline.errors import ModelError
from pipeline.promotion.registry import Registry


def resolve(registry: Registry, model: str, text: str) -> int:
    """Its number. Raises `ModelError` if the alias stands for no version."""
    if text.isdecimal():
        return int(text)
    found = registry.alias(text)
    if found is None:
        raise ModelError(f"The model {model!r} has no {text} version.", fix="refit models lists the versions")
    return found
