from __future__ import annotations

import functools
import io
import logging
import time

import pytest
from rich.console import Console

from pipeline import progress


def test_a_meter_knows_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 100 of 400 images on, 50 in 5 seconds: 10 a second, so 250 take 25 seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress.meter(400, what="head", unit="images", done=100) as meter:
        assert meter.left == float("inf")
        now[0] += 5
        meter.advance(50, "head 1/3")

        assert meter.rate == pytest.approx(10)
        assert meter.left == pytest.approx(25)


def test_a_line_is_due_after_a_while_of_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), progress.meter(4, what="head", unit="images") as meter:
        assert not meter.due
        now[0] += progress.LINE_EVERY_SECONDS
        assert meter.due
        meter.say("halfway, 50 %")
        assert not meter.due
    assert caplog.messages == ["halfway, 50 %"]


def test_a_terminal_has_a_bar_and_lines_above_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=120, color_system=None)
    )
    monkeypatch.setattr(progress, "Progress", functools.partial(progress.Progress, auto_refresh=False))
    with caplog.at_level(logging.INFO), progress.meter(400, what="head", unit="images") as meter:
        meter.advance(100, "head 2/4")
        assert not meter.due
        meter.say("head [1/4]: loss 0.5")

    shown = screen.getvalue()
    assert "head [1/4]: loss 0.5\n" in shown
    assert "head 2/4" in shown
    assert "100/400" in shown
    assert "images/s" in shown
    assert caplog.messages == []
