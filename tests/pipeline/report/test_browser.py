"""The report as a browser shows it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.report.build import build
from tests import browser
from tests.browser import Tab
from tests.pipeline.report.workspace import Workspace

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")
DESKTOP, PHONE = 1280, 390  # CSS pixels
# What a server that shows reports inside its own pages should send.
SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with browser.chromium() as opened:
        yield opened


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab) -> Path:
    monkeypatch.setenv("REFIT_HOME", str(tmp_path / "home"))
    tab.problems.clear()
    tab.requests.clear()
    return build(Workspace(tmp_path / "run").until("promote").path)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_complaint_no_request_and_nothing_beside_the_screen(tab: Tab, report: Path, width: int, dark: bool) -> None:
    tab.open(report.as_uri(), width=width, dark=dark)
    assert tab.problems == []
    assert tab.requests == [report.as_uri()]
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("[...document.images].filter(image => !image.naturalWidth).length") == 0


def test_text_stands_out_in_light_and_dark(tab: Tab, report: Path) -> None:
    for dark in (False, True):
        tab.open(report.as_uri(), width=DESKTOP, dark=dark)
        paper, *inks = (
            luminance(tab.value(f"getComputedStyle(document.querySelector('{chosen}')).{key}"))
            for chosen, key in (("body", "backgroundColor"), ("body", "color"), (".soft", "color"), ("h1", "color"))
        )
        for ink in inks:
            light, dim = max(paper, ink), min(paper, ink)
            assert (light + 0.05) / (dim + 0.05) >= 4.5  # WCAG 2.2, success criterion 1.4.3


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, WCAG 2.2."""
    channels = [int(text) / 255 for text in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_click_on_the_matrix_shows_the_mistakes(tab: Tab, report: Path) -> None:
    tab.open(report.as_uri(), width=DESKTOP)
    anchor = tab.value("document.querySelector('.matrix td a').getAttribute('href')")
    tab.value("document.querySelector('.matrix td a').click()")
    assert tab.value("document.querySelector(':target').id") == anchor[1:]
    top = tab.value("document.querySelector(':target').getBoundingClientRect().top")
    assert 0 <= top < 900
    assert tab.value("document.querySelectorAll(':target img').length") >= 1


def test_a_sandboxed_frame_shows_it_as_well(tab: Tab, report: Path) -> None:
    policy = f'<meta http-equiv="Content-Security-Policy" content="{SANDBOX.removeprefix("sandbox; ")}">'
    outer = report.with_name("outer.html")
    page = html.escape(report.read_text(), quote=True)
    outer.write_text(f'{policy}<iframe sandbox="" style="width:1200px;height:800px" srcdoc="{page}"></iframe>')
    tab.open(outer.as_uri(), width=DESKTOP)
    assert tab.problems == []
    assert tab.requests == [outer.as_uri()]


def test_a_page_that_asks_for_something_is_noticed(tab: Tab, report: Path) -> None:
    """The other tests could not fail otherwise."""
    page = report.read_text().replace("</body>", '<img src="http://127.0.0.1:9/x.png"><script>x()</script></body>')
    report.write_text(page)
    tab.open(report.as_uri(), width=DESKTOP)
    assert len(tab.problems) >= 2  # the page's own policy refuses both
