"""Findings about the data and the one verdict that follows from them. File format: docs/formats.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.errors import DataError

Severity = Literal["warn", "block"]
EXAMPLES = 10  # uris that a finding carries at most


@dataclass(frozen=True)
class Finding:
    check: str  # a key of validate.policy, or `table`: Refit's own tables are damaged
    severity: Severity
    message: str  # one sentence without a full stop: what was found, what was expected
    fix: str  # what a user can do about it
    numbers: Mapping[str, float] = field(default_factory=dict)
    examples: Sequence[str] = ()  # uris


@dataclass(frozen=True)
class Verdict:
    """What blocks comes first; otherwise in the order of the checks."""

    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Verdict:
        return cls(tuple(sorted(findings, key=lambda finding: finding.severity != "block")))

    @property
    def worst(self) -> Literal["pass", "warn", "block"]:
        if not self.findings:
            return "pass"
        return self.findings[0].severity

    def to_json(self) -> dict[str, Any]:
        findings = [asdict(finding) for finding in self.findings]
        return {"verdict": self.worst, "findings": findings}

    def raise_if_blocked(self) -> None:
        """Raises `DataError`, one line with every blocking finding and how to mend it."""
        blocking = [finding for finding in self.findings if finding.severity == "block"]
        if blocking:
            raise DataError(
                "The data cannot be trained on: " + "; ".join(finding.message for finding in blocking) + ".",
                fix="; ".join(dict.fromkeys(finding.fix for finding in blocking)),
            )
