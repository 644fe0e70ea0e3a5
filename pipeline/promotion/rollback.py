"""Makes an earlier version live again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import ModelError, RefitError
from pipeline.promotion import audit
from pipeline.promotion.registry import ALIASES, PREVIOUS, Registry


@dataclass(frozen=True)
class Rolled:
    """`before` and `version` are the same if there was nothing to do."""

    before: int
    version: int
    generation: int


def roll_back(registry: Registry, model: str, *, to: str | None, reason: str) -> Rolled:
    """Move the live pointer to `to` (a number or an alias; None: `previous`), whose files are verified first.

    Without a target each rollback goes one further back (`audit.standing`). Only what has been live can be a target:
    any other version has to pass the gate.

    Raises `RefitError` if there is no such version, `ModelError` if it is damaged or missing, `PromotionRefused` if
    somebody else has moved the pointer meanwhile.
    """
    pointer = registry.pointer()
    if pointer.version is None:
        raise RefitError(f"The model {model!r} has no live version, nor an earlier one.", fix="promote one first")
    moves = registry.history()[: pointer.generation]
    been = {move["version"] for move in moves}
    earlier = audit.standing(moves)[-2::-1]
    target = _target(registry, earlier, to)
    if target is None:
        others = ", ".join(map(str, sorted(been - {pointer.version})))
        raise RefitError(
            f"The model {model!r} has no earlier live version that was not rolled back from already.",
            fix=f"name one with --to; also live once: {others}" if others else "promote another",
        )
    try:
        if target == pointer.version:
            registry.verify(target)
            return Rolled(target, target, pointer.generation)
        if target not in been:
            registry.verify(target)
            raise RefitError(
                f"Version {target} of {model!r} has never been live.",
                fix="refit promote RUN_ID, if its gate has decided so",
            )
        now = registry.move_live(target, expected_generation=pointer.generation, reason=reason, kind=audit.ROLLBACK)
    except ModelError as error:
        further = next((version for version in earlier if version not in {target, pointer.version}), None)
        if further is None:
            raise
        raise ModelError(
            error.problem, fix=f"go further back with --to {further}, or restore it from a backup"
        ) from None
    return Rolled(pointer.version, target, now.generation)


def _target(registry: Registry, earlier: Sequence[int], to: str | None) -> int | None:
    if to is None or to == PREVIOUS:
        return earlier[0] if earlier else None
    if to in ALIASES:
        return registry.alias(to)
    if not to.isdecimal():
        raise RefitError(f"--to: expected a version or an alias ({', '.join(ALIASES)}), got {to!r}.", fix="name one")
    return int(to)
