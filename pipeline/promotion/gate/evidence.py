"""What the gate decides on. Contents of the files: docs/formats.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.promotion.gate.uses import Uses


@dataclass(frozen=True)
class Evidence:
    metrics: Mapping[str, Any]  # metrics/evaluate.json
    verdict: Mapping[str, Any]  # reports/validation/verdict.json
    serving: Mapping[str, Any]  # metrics/serving.json
    live: Mapping[str, Any]  # live.json
    model_digest: str  # sha256 of model.keras
    taught: frozenset[str]  # labels with images that the candidate was trained on
    tested: frozenset[str]  # labels of the test set
    uses: Uses

    @property
    def compared(self) -> Mapping[str, Any]:
        """The section `live` of the metrics; empty if there is none."""
        return self.metrics.get("live") or {}

    def section(self, name: str) -> Mapping[str, Any]:
        """Of the metrics; empty if there is none."""
        return self.metrics.get(name) or {}
