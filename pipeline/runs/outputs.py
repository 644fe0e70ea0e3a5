"""What a run's graph and lock say of the outputs of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

LOCK = "dvc.lock"


def locked_stages(run: Path) -> dict[str, Any]:
    """dvc.lock by stage; empty before the first one has ended."""
    stages: dict[str, Any] = yaml.safe_load((run / LOCK).read_text())["stages"] if (run / LOCK).exists() else {}
    return stages


@dataclass(frozen=True)
class CachedOutputs:
    """What DVC keeps of a run: `name in outputs` says whether a path from the run's directory lies at or in one."""

    paths: tuple[str, ...]  # of one with `${...}` the part before

    @staticmethod
    def of(run: Path) -> CachedOutputs:
        stages: dict[str, Any] = yaml.safe_load((run / "dvc.yaml").read_text())["stages"]
        found = []
        for stage in stages.values():
            for entry in (entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])):
                path, flags = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
                if flags.get("cache", True):
                    found.append(path.partition("${")[0].rstrip("/"))
        return CachedOutputs(tuple(found))

    def __contains__(self, name: str) -> bool:
        return any(PurePosixPath(name).is_relative_to(path) for path in self.paths)
