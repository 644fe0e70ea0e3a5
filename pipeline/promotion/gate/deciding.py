"""Decides, from what has been measured, whether the candidate may go live. Measures nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.promotion.gate import absolute, against_live, asking, caveats, served
from pipeline.promotion.gate.evidence import Evidence
from pipeline.promotion.gate.rule import Rule
from pipeline.settings import Gate


@dataclass(frozen=True)
class Decision:
    promote: bool
    summary: str  # a sentence, or those of the rules that failed
    rules: tuple[Rule, ...]
    warnings: tuple[str, ...]
    approval: Mapping[str, Any]  # whether a person is asked first, and why

    @property
    def borderline(self) -> bool:
        """Whether a bar lies within its figure's interval. Whom that concerns is `approval`'s affair."""
        return any(rule.borderline for rule in self.rules)

    def as_json(self) -> dict[str, Any]:
        return {
            "promote": self.promote,
            "summary": self.summary,
            "rules": [asdict(rule) for rule in self.rules],
            "warnings": list(self.warnings),
            "borderline": self.borderline,
            "approval": dict(self.approval),
        }


def decide(evidence: Evidence, settings: Gate) -> Decision:
    """The same evidence and settings give the same decision."""
    asked = [rule(evidence, settings) for rule in (*absolute.RULES, *served.RULES)]
    if evidence.live["version"] is not None:
        comparison = against_live.comparison(evidence)
        others = against_live.RULES if comparison.passed else (against_live.dropped_classes,)
        asked += [comparison, *(rule(evidence, settings) for rule in others)]
    rules = [rule for rule in asked if rule is not None]
    failed = [rule for rule in rules if not rule.passed]
    summary = "Refused: " + " ".join(rule.explanation for rule in failed) if failed else _promotion(evidence)
    warnings = tuple(caveats.warnings(evidence, rules, settings))
    approval = asking.approval(not failed, rules, evidence, settings)
    return Decision(not failed, summary, tuple(rules), warnings, approval)


def _promotion(evidence: Evidence) -> str:
    if evidence.live["version"] is None:
        return "Promote: the first model, and it passes every absolute floor."
    compared = against_live.judged(evidence)
    known = " of classes that it knows" if against_live.has_new_classes(evidence) else ""
    return (
        f"Promote: balanced accuracy {compared['difference']:+.3f} against live version {evidence.live['version']} on "
        f"the same {compared['images']} images{known}, and no class or slice is clearly worse."
    )
