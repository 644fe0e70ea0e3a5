"""dvc.yaml as a graph of stages.

A stage depends on another when one of its `deps` is, lies in or contains one of the other's outputs: the rule by
which DVC itself orders stages. Of a path with `${...}` the part before counts, since it differs per item only below.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

TRAINING = frozenset({"train"})  # needs an accelerator
MODELS = TRAINING | {"evaluate", "diagnose", "serve", "gate", "promote"}  # run in the image that trains


@dataclass(frozen=True)
class Stage:
    name: str
    description: str
    mapped: bool  # one process per item of its matrix
    upstream: frozenset[str]


def read_stages(path: Path) -> tuple[Stage, ...]:
    """The stages of a dvc.yaml file, in its order."""
    stages: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["stages"]
    outputs = {name: _outputs(stage) for name, stage in stages.items()}
    return tuple(
        Stage(
            name=name,
            description=stage.get("desc", ""),
            mapped="matrix" in stage,
            upstream=frozenset(
                other
                for other, written in outputs.items()
                if other != name and any(_overlap(_fixed(dep), out) for dep in stage.get("deps", []) for out in written)
            ),
        )
        for name, stage in stages.items()
    )


def _outputs(stage: dict[str, Any]) -> list[PurePosixPath]:
    """Paths under outs, metrics and plots; an entry is a path or a mapping of one path to its flags."""
    entries = [entry for key in ("outs", "metrics", "plots") for entry in stage.get(key, [])]
    return [_fixed(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]


def _fixed(path: str) -> PurePosixPath:
    parts = PurePosixPath(path).parts
    templated = next((index for index, part in enumerate(parts) if "${" in part), len(parts))
    return PurePosixPath(*parts[:templated])


def _overlap(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
