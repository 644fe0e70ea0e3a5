"""What a person's answer does to a promotion, and how it is recorded."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline import files
from pipeline.errors import PromotionRefused, SettingsError
from pipeline.promotion import approval, approval_text
from pipeline.promotion.approval import Approval
from pipeline.promotion.promote import promote
from pipeline.promotion.registry import Registry
from tests.pipeline.promotion.finished_run import finished_run

ASKS = {"approval": {"required": True, "why": "gate.approval is always."}}
AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
YES = Approval(approved=True, by="anna", reason="Looks good.", at=AT)
NO = Approval(approved=False, by="ben", reason="Too few nights.", at=AT)


def test_a_decision_that_asks_waits_for_an_answer(registry: Registry, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "r1", decision=ASKS)
    with pytest.raises(PromotionRefused, match=r"asks for a person's approval: gate\.approval is always"):
        promote(run, registry)
    assert (registry.versions(), (run / "promotion.json").exists()) == ([], False)

    done = promote(run, registry, answer=YES)

    [move] = registry.history()
    told = {"approved": True, "by": "anna", "reason": "Looks good.", "at": "2026-03-01T09:30:00+00:00"}
    assert move["approval"] == done["approval"] == told
    assert move["reason"] == "Promote: better."
    assert promote(run, registry)["approval"] == told, "repeating it needs no second answer"
    assert registry.rejections() == []


def test_a_rejection_changes_nothing_and_is_kept(registry: Registry, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "r1", decision=ASKS)
    first = promote(run, registry, answer=NO)
    assert (first["promoted"], first["version"]) == (False, None)
    assert first["reason"] == "Rejected by ben: Too few nights."
    assert first["approval"]["approved"] is False
    promote(run, registry, answer=NO)
    assert (registry.versions(), registry.history(), registry.pointer().version) == ([], [], None)
    digest = files.read_json(run / "decision.json")["model_digest"]
    said = {"run": "r1", "digest": digest, "live_version": None, "by": "ben", "reason": "Too few nights."}
    assert registry.rejections() == [said | {"at": "2026-03-01T09:30:00+00:00"}]

    # Somebody may think otherwise later; both stay on record, and readers of moves see one move.
    assert promote(run, registry, answer=YES)["version"] == 1
    assert [move["version"] for move in registry.history()] == [1]
    assert len(registry.rejections()) == 1


def test_what_is_live_cannot_be_rejected(registry: Registry, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "r1", decision=ASKS)
    promote(run, registry, answer=YES)
    with pytest.raises(PromotionRefused, match="too late to reject this run: version 1 was promoted") as caught:
        promote(run, registry, answer=NO)
    assert caught.value.fix.startswith("refit rollback")
    assert registry.rejections() == []


def test_an_answer_to_another_decision_does_not_count(registry: Registry, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "r1", decision=ASKS)
    shown = approval_text.question(run)["decision"]
    files.write_json(run / "decision.json", files.read_json(run / "decision.json") | {"summary": "Promote: other."})
    for answer in (YES, NO):
        with pytest.raises(PromotionRefused, match="The answer is to the decision"):
            promote(run, registry, answer=answer.model_copy(update={"decision": shown}))
    now = approval_text.question(run)["decision"]
    assert promote(run, registry, answer=YES.model_copy(update={"decision": now}))["promoted"]


def test_no_answer_makes_a_refusal_a_promotion(registry: Registry, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "r1", promote=False)
    assert promote(run, registry, answer=YES)["promoted"] is False
    assert registry.versions() == []


def test_decisions_of_earlier_versions_ask_nobody(registry: Registry, tmp_path: Path) -> None:
    assert promote(finished_run(tmp_path / "r1"), registry)["approval"] is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "true",
        '"approved"',
        "{}",
        '{"approved": "yes", "by": "a", "reason": "b", "at": "2026-03-01T09:30:00+00:00"}',
        '{"approved": true, "by": "a", "reason": " ", "at": "2026-03-01T09:30:00+00:00"}',
        '{"approved": true, "by": "", "reason": "b", "at": "2026-03-01T09:30:00+00:00"}',
        '{"approved": true, "by": "a", "reason": "b", "at": "2026-03-01T09:30:00"}',
        '{"approved": true, "by": "a", "reason": "b", "at": "2026-03-01T09:30:00+00:00", "more": 1}',
        "None",
    ],
)
def test_what_is_no_answer_is_no_approval(text: str) -> None:
    with pytest.raises(SettingsError, match="--approval: expected policy or"):
        approval.parse(text)


def test_an_answer_survives_the_way_through_a_scheduler() -> None:
    assert approval.parse('"policy"') is None
    assert approval.parse("policy") is None
    # As Jinja's tojson writes it: markup characters are escaped.
    text = json.dumps({**YES.as_json(), "reason": "a < b & 'c'", "decision": "ab"}).replace("<", "\\u003c")
    assert approval.parse(text) == YES.model_copy(update={"reason": "a < b & 'c'", "decision": "ab"})


def rendered(markdown: str) -> str:
    """As a renderer that lets HTML through and makes links of addresses shows it."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)


@given(st.text(max_size=80))
def test_any_label_is_shown_as_text(label: str) -> None:
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in label).split())
    html = rendered(f"| class |\n| --- |\n| {approval_text.escaped(label)} |")
    cells = re.findall(r"<td>(.*?)</td>", html, re.DOTALL)
    assert len(cells) == 1
    assert "<" not in cells[0]
    shown = cells[0].replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
    assert shown.replace("\u2060", "") == line.replace("\u2060", "")


@pytest.mark.parametrize(
    "label", ["https://evil.example/x", "www.evil.example", "a@evil.example", "HTTP://EVIL.example"]
)
def test_an_address_in_a_label_is_broken_invisibly(label: str) -> None:
    """Renderers make links of addresses also where every character is escaped."""
    plain = rendered(approval_text.escaped(label))
    assert not re.search(r"https?://|www\.|\w@\w", plain, re.IGNORECASE)


def test_the_body_holds_decision_comparison_and_diagnosis(tmp_path: Path) -> None:
    evil = "| x |\n<img src=x onerror=alert(1)> [a](javascript:b)"
    row: dict[str, Any] = {"support": 9, "candidate_recall": 0.5, "live_recall": 0.75}
    live = {"version": 3, "images": 40, "difference": 0.02, "difference_low": -0.01, "difference_high": 0.05}
    live |= {"per_class": {evil: row, "dog": row | {"candidate_recall": 0.9}}}
    run = finished_run(tmp_path / "r1", decision=ASKS, metrics={"live": live})
    causes = [{"cause": "few images", "score": 0.61234, "evidence": [evil], "change": {}, "advice": ""}]
    files.write_json(run / "reports/diagnosis.json", {"causes": causes})

    question = approval_text.question(run)

    assert question["approval"] == ASKS["approval"]
    assert question["decision"] == files.sha256(run / "decision.json")
    html = rendered(question["body"])
    assert not re.search(r"<(img|a|script)\b", html)
    assert "<td>accuracy floor</td>" in html
    assert "0.020 [-0.010, 0.050]" in html
    assert html.index("onerror") < html.index("<td>dog</td>"), "largest loss first"
    assert "<strong>few images</strong> (0.61)" in html
    assert len(question["body"]) < 8000


def test_a_body_stays_small_with_a_thousand_classes(tmp_path: Path) -> None:
    row = {"support": 9, "candidate_recall": 0.5, "live_recall": 0.75}
    live = {"images": 9, "difference": 0.0, "difference_low": 0.0, "difference_high": 0.0}
    per_class = {f"class {number} {'x' * 300}": row for number in range(1000)}
    run = finished_run(tmp_path / "r1", metrics={"live": live | {"per_class": per_class}})
    assert len(approval_text.body(run)) < 12_000
