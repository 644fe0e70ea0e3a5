"""What the page of models shows, as the command `refit` tells it: the registry may be a folder or a bucket."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from refit_review import places
from refit_review.command import Unavailable, ask

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def names() -> list[str]:
    """Of models that have a run here or a folder in the registry here; newest runs first."""
    found = [str(run.record.get("model")) for run in places.newest()]
    with suppress(OSError):
        found += sorted(path.name for path in (places.home() / "registry").iterdir() if path.is_dir())
    return [name for name in dict.fromkeys(found) if NAME.fullmatch(name)]


def versions(model: str) -> dict[str, Any]:
    """What `refit models list --json` prints. Raises `Unavailable`."""
    return _object(ask("models", "list", f"--model={model}", "--json"))


def version(model: str, number: int) -> dict[str, Any]:
    """What `refit models show --json` prints. Raises `Unavailable`."""
    return _object(ask("models", "show", str(number), f"--model={model}", "--json"))


def _object(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise Unavailable("The command refit gave no JSON object.")
    return found
