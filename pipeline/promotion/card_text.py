"""card.md of a version: the stub that training wrote, word for word, and in it what has become known since."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.training.card import STUB, table, text


def complete(stub: str, card: Mapping[str, Any]) -> str:
    """The stub with the sections that the promotion adds after its first one; all others stay as they are.

    `stub`: Markdown, empty if training wrote none; `card`: the content of card.json.
    """
    head, *sections = re.split(r"^(?=## )", stub or f"# Model card\n\n{STUB}\n\n", flags=re.MULTILINE)
    head = head.replace(STUB, f"Written by Refit for the version that run {text(card['run_id'])} has made.")
    added = [f"## {title}\n\n{body}\n\n" for title, body in _sections(card) if body]
    return "".join([head, *sections[:1], *added, *sections[1:]]).rstrip("\n") + "\n"


def figure(row: Mapping[str, Any]) -> str:
    """A value and its interval: 0.912 [0.880, 0.941]."""
    if row.get("value") is None:
        return "unknown"
    if row.get("low") is None or row.get("high") is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def with_interval(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What `figure` takes, from the keys `name`, `name`_low and `name`_high."""
    return {"value": row.get(name), "low": row.get(f"{name}_low"), "high": row.get(f"{name}_high")}


def _sections(card: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "Decision", _decision(card["decision"])
    yield f"Figures on {card['test']['images']} held-out images", _metrics(card)
    yield "Figures by class", _classes(card["test"]["per_class"])
    yield "Figures by slice", _slices(card["slices"])
    yield "What was not measured", "\n".join(f"- {text(sentence)}" for sentence in card["limits"])
    yield "Data snapshot", _data(card["data"])


def _decision(decision: Mapping[str, Any]) -> str:
    rows = [
        ("pass" if rule["passed"] else "fail", rule["rule"], rule["value"], rule["threshold"], rule["explanation"])
        for rule in decision["rules"]
    ]
    warnings = [f"- {text(sentence)}" for sentence in decision.get("warnings", [])]
    parts = [text(decision["summary"]), table(["", "rule", "value", "bar", "why"], map(_plain, rows))]
    return "\n\n".join([*parts, *(["\n".join(warnings)] if warnings else [])])


def _metrics(card: Mapping[str, Any]) -> str:
    rows = [(name.replace("_", " "), figure(row)) for name, row in card["metrics"].items()]
    folds = card["cross_validation"]
    mean = {"value": folds.get("balanced_accuracy_mean")}
    rows.append((f"balanced accuracy, mean of {len(folds['folds'])} folds", figure(mean)))
    return table(["", "value [interval]"], rows)


def _classes(per_class: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (label, row["support"], figure(with_interval(row, "recall")), figure(with_interval(row, "precision")))
        for label, row in per_class.items()
    ]
    return table(["class", "held-out images", "recall", "precision"], rows)


def _slices(slices: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (
            row["by"],
            row["value"],
            row["images"],
            figure(with_interval(row, "accuracy")),
            "" if row.get("difference") is None else figure(with_interval(row, "difference")),
        )
        for row in slices
    ]
    return table(["by", "slice", "images", "accuracy", "against the live model"], rows) if rows else ""


def _data(data: Mapping[str, Any]) -> str:
    rows = [
        ("source", data["source"]),
        ("digest of the assignment", data["digest"]),
        ("images in force", data["images"]),
        *((f"of these for {split}", count) for split, count in data["splits"].items()),
        ("in quarantine", _counts(data["quarantined"])),
        ("batches", "; ".join(f"{row['batch']} (+{row['accepted']} -{row['removed']})" for row in data["batches"])),
        ("images of each class", _counts(data["classes"])),
    ]
    return table(["", ""], [row for row in rows if row[1] not in (None, "")])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _plain(row: Iterable[Any]) -> list[Any]:
    return [f"{cell:.4g}" if isinstance(cell, float) else "" if cell is None else cell for cell in row]
