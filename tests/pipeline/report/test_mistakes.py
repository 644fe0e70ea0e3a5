from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.report import mistakes

LIMIT = 100_000_000


def row(label: str, predicted: str, confidence: float) -> dict[str, Any]:
    found = {"label": label, "predicted": predicted, "confidence": confidence, "live_predicted": None}
    return found | {"image_id": f"{label}{predicted}{confidence}", "uri": "u"}


def test_the_most_confident_come_first_and_no_pair_fills_the_page(tmp_path: Path) -> None:
    rows = [row("a", "b", confidence) for confidence in (0.5, 0.6, 0.7, 0.8, 0.9)]
    rows += [row("b", "a", 0.55), row("a", "a", 0.99)]
    picture = tmp_path / "a.png"
    Image.new("L", (8, 8)).save(picture)
    found = mistakes.choose(rows, lambda _: picture, LIMIT)
    assert [(one.label, one.confidence) for one in found] == [("a", 0.9), ("a", 0.8), ("a", 0.7), ("b", 0.55)]
