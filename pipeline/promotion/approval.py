"""A person's answer to a decision that asks for one (docs/formats.md, `promotion.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

from pipeline import files
from pipeline.errors import PromotionRefused, SettingsError
from pipeline.promotion.audit import user

POLICY = "policy"  # the answer where nobody was asked
DECISION = "decision.json"
REASON_LENGTH = 1000  # characters

_Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=REASON_LENGTH)]


class Approval(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    approved: bool
    by: _Words
    reason: _Words
    at: AwareDatetime
    decision: str | None = None  # sha256 of the decision.json that was shown; None: of whichever is there

    def as_json(self) -> dict[str, Any]:
        return {
            "approved": self.approved,
            "by": self.by,
            "reason": self.reason,
            "at": self.at.isoformat(timespec="seconds"),
        }


def parse(text: str) -> Approval | None:
    """The answer as a scheduler hands it over: a JSON object, or `policy` (None).

    Raises `SettingsError` for anything else: an answer that cannot be read is no approval.
    """
    if text in {POLICY, json.dumps(POLICY)}:
        return None
    try:
        return Approval.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors()]
        raise SettingsError(
            f'--approval: expected {POLICY} or {{"approved", "by", "reason", "at"}} as JSON, got {text!r} '
            f"({'; '.join(problems)}).",
            fix="hand over what the approval task returned",
        ) from None


def own(reason: str | None, *, approved: bool = True) -> Approval:
    """That of the person who calls a command. Raises `PromotionRefused` without a reason."""
    reason = (reason or "").strip()
    if not reason:
        raise PromotionRefused(
            "This decision asks for a person's approval, and a reason was not given.", fix="add --reason TEXT"
        )
    try:
        return Approval(approved=approved, by=user(), reason=reason, at=datetime.now(UTC))
    except ValidationError:
        raise SettingsError(
            f"--reason: expected at most {REASON_LENGTH} characters, got {len(reason)}.", fix="shorten it"
        ) from None


def required(decision: Mapping[str, Any]) -> bool:
    """Decisions of earlier versions ask nobody."""
    return bool(decision["promote"] and (decision.get("approval") or {}).get("required"))


def require(decision: Mapping[str, Any], answer: Approval | None, run: Path) -> None:
    """Raises `PromotionRefused` where the decision asks for an answer and there is none, or one to another decision."""
    if answer is None:
        if required(decision):
            raise PromotionRefused(
                f"This decision asks for a person's approval: {decision['approval']['why']}",
                fix=f"refit approve {run.name} --reason TEXT",
            )
        return
    if answer.decision is not None and answer.decision != (found := files.sha256(run / DECISION)):
        raise PromotionRefused(
            f"The answer is to the decision {answer.decision[:12]}, the run holds {found[:12]}.",
            fix="ask again: clear the task approve",
        )
