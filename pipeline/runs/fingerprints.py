"""Of what a run consists, as digests: whether it can come to anything that an earlier run has not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pipeline import files
from pipeline.runs.run import Run, find

CODE = ("pipeline", "components")


def code_digest(root: Path) -> str:
    """Of the graph and of all Python files that stages may import."""
    parts = [files.sha256(root / "dvc.yaml"), *(files.sha256_tree(root / name) for name in CODE)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def fingerprint(run: Run) -> str:
    """Of everything that decides a run's outcome but the live model: data, params and code.

    Neither where a run works nor where models are kept decides it.
    """
    params = {name: section for name, section in run.params.items() if name not in {"execution", "registry"}}
    schema = files.sha256(run.path / "schema.pbtxt")
    content = [files.sha256_tree(run.path / "data/manifest"), params, schema, code_digest(run.path)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def nothing_new(run: Run) -> bool:
    """Whether the parent has already decided on this data with these params and this code. Call after ingest."""
    value = fingerprint(run)
    run.update(fingerprint=value)
    parent = run.record["parent"]
    return parent is not None and find(parent).record["fingerprint"] == value
