"""All families of causes, ranked. Content of reports/diagnosis.json: docs/formats.md."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.diagnosis import classes, drift, fitting, quantity, resolution, stability, transfer
from pipeline.diagnosis.cause import Cause
from pipeline.diagnosis.facts import Facts

FAMILIES = (quantity, resolution, fitting, transfer, classes, stability, drift)
WORTH_NAMING = 0.05  # causes with a lower score are noise to whoever reads the list


def diagnose(facts: Facts) -> list[Cause]:
    """Causes worth naming, worst first; empty for a model that nothing is wrong with."""
    found = [cause for family in FAMILIES for cause in family.find(facts) if cause.score >= WORTH_NAMING]
    return sorted(found, key=lambda cause: (-cause.score, cause.cause))


def as_json(causes: list[Cause]) -> dict[str, Any]:
    return {"causes": [{**asdict(cause), "score": round(cause.score, 3)} for cause in causes]}
