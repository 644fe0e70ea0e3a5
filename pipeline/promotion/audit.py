"""The moves of a live pointer as a record: who moved it, when, why, from what to what, and where back is.

A move is one of docs/formats.md. Moves made before there was a `kind` are told apart by their reason.
"""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

PROMOTE, ROLLBACK = "promote", "rollback"

Move = Mapping[str, Any]


def new_move(
    *,
    generation: int,
    version: int,
    previous: int | None,
    digest: str,
    kind: str,
    reason: str,
    run: str | None,
    approval: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`approval`: who let the decision be carried out, when and why, where a person was asked."""
    return {
        "generation": generation,
        "version": version,
        "previous": previous,
        "digest": digest,
        "kind": kind,
        "reason": reason,
        "run": run,
        "approval": dict(approval) if approval else None,
        "by": user(),
        "host": platform.node(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "id": uuid4().hex,  # tells our own move from one that says the same
    }


def kind(move: Move) -> str:
    found: str | None = move.get("kind")
    return found or (ROLLBACK if move["reason"].startswith("rollback") else PROMOTE)


def standing(moves: Sequence[Move]) -> list[int]:
    """Versions that were live and have not been rolled back from, the live one last.

    A rollback takes away all that came after its target, so that the next one goes further back and never brings
    back what somebody has fled from: 1, 2, 3, rollback gives [1, 2], another [1]; then 4 gives [1, 4].
    """
    stack: list[int] = []
    for move in moves:
        version = move["version"]
        if kind(move) == ROLLBACK and version in stack:
            while stack[-1] != version:
                stack.pop()
        elif not stack or stack[-1] != version:
            stack.append(version)
    return stack


def told(move: Move) -> str:
    """Who did it: "version 3 was promoted by anna on … (run …): …"."""
    done = "rolled back to" if kind(move) == ROLLBACK else "promoted"
    run = f" (run {move['run']})" if move.get("run") else ""
    return f"version {move['version']} was {done} by {move['by']} at {move['at']}{run}: {move['reason']}"


def approved(answer: Mapping[str, Any] | None) -> str:
    """ ", approved by anna at … (why)", or nothing where nobody was asked."""
    return f", approved by {answer['by']} at {answer['at']} ({answer['reason']})" if answer else ""


def rejected(rejection: Mapping[str, Any]) -> str:
    return f"run {rejection['run']} was rejected by {rejection['by']} at {rejection['at']}: {rejection['reason']}"


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
