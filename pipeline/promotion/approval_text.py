"""What the person who approves is shown, in Markdown: the decision, the comparison with the live model, the diagnosis.

Labels come from folder names and sentences hold them, so every word is escaped: none of it may become a link, a
picture, a tag or a row of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.promotion.approval import DECISION
from pipeline.promotion.card_text import figure, with_interval

ROWS = 12  # of classes; the report has all
CAUSES = 3
WORDS = 600  # characters of one sentence
_LINKED = re.compile(
    r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE
)  # what renderers make links of, also when escaped
_WORD_JOINER = "\u2060"  # invisible
_ACTIVE = re.compile(r"([\\`*_{}\[\]()<>#+.!|~&:/@$^=-])")  # ASCII punctuation that Markdown lets a backslash escape


def question(run: Path) -> dict[str, Any]:
    """What a scheduler needs to ask: `{"promote", "summary", "approval": {"required", "why"}, "decision" (sha256 of
    decision.json, which the answer is bound to), "body"}`."""
    decision = files.read_json(run / DECISION)
    return {
        "promote": decision["promote"],
        "summary": decision["summary"],
        "approval": decision["approval"],
        "decision": files.sha256(run / DECISION),
        "body": body(run),
    }


def body(run: Path) -> str:
    """A few kB. `run` has its decision; what else is missing is left out."""
    decision = files.read_json(run / DECISION)
    evaluation = _optional(run / "metrics/evaluate.json") or {}
    diagnosis = _optional(run / "reports/diagnosis.json") or {}
    sections = [
        ("", _summary(decision, run.name)),
        ("Decision", _decision(decision)),
        ("Compared with the live model", _compared(evaluation.get("live"))),
        ("Diagnosis", _diagnosis(diagnosis.get("causes") or [])),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" if title else text for title, text in sections if text)


def escaped(words: Any) -> str:
    """Plain text, on one line, as Markdown that shows exactly it."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(words)).split())
    short = line if len(line) <= WORDS else f"{line[:WORDS]}…"
    return _ACTIVE.sub(r"\\\1", _LINKED.sub(_WORD_JOINER, short))


def _summary(decision: Mapping[str, Any], run_id: str) -> str:
    why = (decision.get("approval") or {}).get("why")
    asked = [f"**Why you are asked:** {escaped(why)}"] if why else []
    return "\n\n".join([f"Run {escaped(run_id)}. {escaped(decision['summary'])}", *asked])


def _decision(decision: Mapping[str, Any]) -> str:
    rows = [
        (
            "✓ pass" if rule["passed"] else "✗ fail",
            rule["rule"],
            _value(rule["value"]),
            _value(rule["threshold"]),
            "bar within the interval" if rule.get("borderline") else "",
        )
        for rule in decision["rules"]
    ]
    warnings = [f"- {escaped(sentence)}" for sentence in decision.get("warnings", [])]
    return "\n\n".join([_table(["", "rule", "value", "bar", ""], rows), *(["\n".join(warnings)] if warnings else [])])


def _compared(live: Mapping[str, Any] | None) -> str:
    if not live:
        return "No model is live yet, so there is nothing to compare with."
    if not live.get("images"):
        return "No held-out image is new to the live model, so the two cannot be compared."
    rows = [("balanced accuracy, difference", figure(with_interval(live, "difference")))]
    for name in ("balanced_accuracy", "accuracy"):
        if name in live and f"candidate_{name}" in live:
            words = f"live {live[name]:.3f}, candidate {live[f'candidate_{name}']:.3f}"
            rows.append((name.replace("_", " "), words))
    classes = sorted(_changes(live.get("per_class") or {}))
    parts = [
        f"On {live['images']} held-out images that are new to it.",
        _table(["", "value [interval]"], rows),
        _table(
            ["class", "images", "live recall", "candidate recall"],
            [(label, support, f"{theirs:.3f}", f"{ours:.3f}") for _, label, support, theirs, ours in classes[:ROWS]],
        ),
    ]
    if len(classes) > ROWS:
        parts.append(f"The {ROWS} largest losses of {len(classes)} classes.")
    return "\n\n".join(parts)


def _changes(per_class: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[float, str, int, float, float]]:
    for label, row in per_class.items():
        ours, theirs = row.get("candidate_recall"), row.get("live_recall")
        if row.get("support") and ours is not None and theirs is not None:
            yield ours - theirs, label, row["support"], theirs, ours


def _diagnosis(causes: Sequence[Mapping[str, Any]]) -> str:
    if not causes:
        return "Nothing was found that would explain weak figures."
    lines = []
    for cause in causes[:CAUSES]:
        evidence = " ".join(map(str, cause.get("evidence") or []))
        lines.append(f"- **{escaped(cause['cause'])}** ({cause['score']:.2f}): {escaped(evidence)}")
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [[escaped(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [list(header), ["---"] * len(header), *lines])


def _value(value: Any) -> Any:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else value


def _optional(path: Path) -> Any:
    return files.read_json(path) if path.exists() else None
