"""Learning curves as coordinates for inline SVG; the template draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.pages.axis import Tick

WIDTH, HEIGHT = 520, 230  # of a panel, in the SVG's own units
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 26, 26  # margins, for the axes' labels
TITLES = {"loss": "Loss (nats)", "accuracy": "Accuracy"}
PHASES = {"head": "frozen backbone", "finetune": "fine-tuning"}


@dataclass(frozen=True)
class Line:
    name: str  # training or validation
    points: str  # of an SVG polyline
    last: tuple[float, float]


@dataclass(frozen=True)
class Span:
    """A phase: where it lies on the axis of epochs, and where its best epoch is."""

    text: str
    start: float
    end: float
    best: float
    kept: bool


@dataclass(frozen=True)
class Panel:
    title: str
    description: str  # for those who cannot see it
    lines: tuple[Line, ...]
    horizontal: tuple[Tick, ...]
    vertical: tuple[Tick, ...]
    spans: tuple[Span, ...]


def panels(history: Mapping[str, Any]) -> list[Panel]:
    """A panel for loss and one for accuracy, both phases one after the other. Empty without an epoch."""
    phases = [phase for phase in history["phases"] if phase["loss"]]
    if not phases:
        return []
    return [_panel(quantity, phases, history["kept_phase"]) for quantity in TITLES]


def _panel(quantity: str, phases: Sequence[Mapping[str, Any]], kept: str) -> Panel:
    epochs = sum(len(phase["loss"]) for phase in phases)
    values: list[float] = [value for phase in phases for name in (quantity, f"val_{quantity}") for value in phase[name]]
    low, high = min(values), max(values)
    if quantity == "loss":
        low = 0.0
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def x(epoch: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * epoch / max(epochs - 1, 1), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    lines, spans, start = [], [], 0
    for phase in phases:
        for name, key in (("training", quantity), ("validation", f"val_{quantity}")):
            points = [(x(start + epoch), y(value)) for epoch, value in enumerate(phase[key])]
            lines.append(Line(name, " ".join(f"{a},{b}" for a, b in points), points[-1]))
        end = start + len(phase["loss"])
        text = PHASES.get(phase["name"], phase["name"])
        edge = x(start - 0.5) if start else x(0)
        spans.append(
            Span(text, edge, x(min(end - 0.5, epochs - 1)), x(start + phase["best_epoch"]), phase["name"] == kept)
        )
        start = end
    best = [phase[f"val_{quantity}"][phase["best_epoch"]] for phase in phases if phase["name"] == kept]
    return Panel(
        title=TITLES[quantity],
        description=f"{TITLES[quantity]} over {epochs} epochs"
        + (f"; validation reached {best[0]:.3f} in the epoch that was kept." if best else "."),
        lines=tuple(lines),
        horizontal=tuple(Tick(y(value), f"{value:g}") for value in ticks),
        vertical=tuple(Tick(x(epoch), str(epoch + 1)) for epoch in _epoch_ticks(epochs)),
        spans=tuple(spans),
    )


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values that enclose low … high."""
    span = max(high - low, 1e-3)
    step = next(base * 10**power for power in range(-5, 12) for base in (1, 2, 5) if span / (base * 10**power) <= 4)
    first = int(low // step)
    count = int(-(-(high - first * step) // step))
    return [round((first + number) * step, 10) for number in range(max(count, 1) + 1)]


def _epoch_ticks(epochs: int) -> list[int]:
    step = max(1, -(-epochs // 8))
    return list(range(0, epochs, step))
