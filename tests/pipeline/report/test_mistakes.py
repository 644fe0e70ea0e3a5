from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.pages.thumbnails import Album
from pipeline.report import mistakes


def row(label: str, predicted: str, confidence: float) -> dict[str, Any]:
    found = {"label": label, "predicted": predicted, "confidence": confidence, "live_predicted": None}
    return found | {"image_id": f"{label}{predicted}{confidence}", "uri": "u"}


@pytest.fixture
def album(tmp_path: Path) -> Album:
    picture = tmp_path / "a.png"
    Image.new("L", (8, 8)).save(picture)
    return Album(lambda name: picture if "lost" not in name else tmp_path / name, max_pixels=64, budget=10**6)


def test_frequent_pairs_come_first_and_show_their_most_confident_answers(album: Album) -> None:
    rows = [row("a", "b", confidence) for confidence in (0.5, 0.6, 0.7, 0.8, 0.9)]
    rows += [row("b", "a", 0.95), row("a", "a", 0.99)]
    found = mistakes.choose(rows, album)
    assert [(group.anchor, group.label, group.predicted, group.count) for group in found] == [
        ("mistakes-1", "a", "b", 5),
        ("mistakes-2", "b", "a", 1),
    ]
    assert [one.confidence for one in found[0].mistakes] == [0.9, 0.8, 0.7, 0.6]


def test_every_pair_gets_a_picture_before_any_gets_another(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mistakes, "SHOWN", 4)
    rows = [row("a", name, confidence) for name in "bcd" for confidence in (0.5, 0.6)] + [row("a", "b", 0.7)]
    found = mistakes.choose(rows, album)
    assert [(group.predicted, len(group.mistakes)) for group in found] == [("b", 2), ("c", 1), ("d", 1)]


def test_pairs_whose_images_are_gone_are_left_out(album: Album) -> None:
    found = mistakes.choose([row("lost", "b", 0.9), row("a", "b", 0.4)], album)
    assert [(group.label, group.anchor) for group in found] == [("a", "mistakes-1")]
