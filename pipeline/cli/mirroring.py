"""The mirror in MLflow, as commands keep it: it may fail, and nothing else fails with it."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping
from typing import Any

from pipeline import runs
from pipeline.cli.text import plain
from pipeline.errors import RefitError
from pipeline.promotion import mlflow_mirror
from pipeline.promotion.mlflow_mirror import Server
from pipeline.promotion.registry import Registry


def server(model: str, params: Mapping[str, Any] | None = None) -> Server | None:
    """At `registry.mlflow_uri` of a run's params or as `runs.registry_settings` says; None if none is set.

    What lets us in comes from MLflow's own variables.
    """
    section = runs.registry_settings(model) if params is None else params.get("registry") or {}
    uri = section.get("mlflow_uri")
    return Server(uri, _headers()) if uri else None


def mirror(registry: Registry, model: str, params: Mapping[str, Any] | None = None) -> None:
    """Follow the live pointer, which has moved already; a failure is a warning."""
    if (found := server(model, params)) is None:
        return
    try:
        mlflow_mirror.mirror(registry, model, found)
    except (RefitError, OSError) as error:
        print(f"warning: MLflow was not told which version is live. {plain(str(error))}", file=sys.stderr)


def _headers() -> dict[str, str]:
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}
