from __future__ import annotations

from typing import Any

import pytest

from pipeline.report import curves


def history(*lengths: int, kept: str = "head") -> dict[str, Any]:
    phases = []
    for name, epochs in zip(("head", "finetune"), lengths, strict=False):
        falling = [1.0 - 0.5 * epoch / max(epochs, 1) for epoch in range(epochs)]
        values = {"loss": falling, "val_loss": falling, "accuracy": [0.5] * epochs, "val_accuracy": [0.75] * epochs}
        phases.append({"name": name, "best_epoch": max(epochs - 1, 0), "seconds": 1.0, **values})
    return {"phases": phases, "kept_phase": kept}


@pytest.mark.parametrize("lengths", [(1,), (7,), (60, 10), (1, 1), (2, 0)], ids=str)
def test_everything_is_drawn_inside_the_panel(lengths: tuple[int, ...]) -> None:
    for panel in curves.panels(history(*lengths)):
        points = [tuple(map(float, pair.split(","))) for line in panel.lines for pair in line.points.split()]
        assert len(points) == 2 * sum(lengths)
        assert all(curves.LEFT <= x <= curves.WIDTH - curves.RIGHT for x, _ in points)
        assert all(curves.TOP <= y <= curves.HEIGHT - curves.BOTTOM for _, y in points)
        assert all(curves.LEFT <= span.start <= span.end <= curves.WIDTH - curves.RIGHT for span in panel.spans)
        assert all(curves.TOP <= tick.at <= curves.HEIGHT - curves.BOTTOM for tick in panel.horizontal)


def test_higher_values_are_higher_up_and_later_epochs_further_right() -> None:
    loss = curves.panels(history(5))[0].lines[0].points.split()
    first, last = (tuple(map(float, pair.split(","))) for pair in (loss[0], loss[-1]))
    assert last[0] > first[0]
    assert last[1] > first[1]


def test_the_kept_phase_is_marked() -> None:
    spans = curves.panels(history(5, 3, kept="finetune"))[1].spans
    assert [span.kept for span in spans] == [False, True]
    assert spans[0].end == spans[1].start
    assert "0.750" in curves.panels(history(5, 3, kept="finetune"))[1].description


def test_without_epochs_there_is_nothing_to_draw() -> None:
    assert curves.panels(history(0, 0)) == []


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.5, 1]), (0.31, 0.97, [0.2, 0.4, 0.6, 0.8, 1.0]), (0, 3.1, [0, 1, 2, 3, 4]), (0.5, 0.5, None)],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, ticks: list[float] | None) -> None:
    found = curves._ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 6
    if ticks:
        assert found == pytest.approx(ticks)
